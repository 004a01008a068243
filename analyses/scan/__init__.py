"""What is there to see in this ViT? What each head does on images, findings ranked by strength."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from aft_lens.data import load_data
from aft_lens.extraction import AFTReader, AttentionReader, as_reader, drawn_words, image_batches
from aft_lens.mode import evaluating
from aft_lens.models import VisionModel
from aft_lens.progress import progress as bar
from analyses.command import known_data, report, report_folder
from analyses.explain import open_reader
from analyses.explain.causal import Batches, Effect, compare, outcome, without
from analyses.scan.findings import Finding, head_findings, layer_findings, measures, ranked
from analyses.scan.gather import gather
from analyses.scan.logits import Kept, logit_findings, logits
from analyses.scan.result import Scan

GROUPS = 64
"""Groups of images at most that intervals are made over."""
MOST_EDITS = 64
"""Heads of an AFT up to which each is measured without its bias; of more, the layers alone."""

__all__ = ["Finding", "Scan", "command", "scan"]


def scan(
    model: nn.Module | AttentionReader,
    batches: Iterable[Tensor | Sequence[Any]],
    *,
    labelled: Batches = (),
    seed: int = 0,
    progress: bool = False,
) -> Scan:
    """Say what the heads of a ViT, or an AFT-conv, do on images, the strongest findings first.

    Each batch (images `b c y x`, or a tuple that starts with them) is a group of images that intervals are made over.
    For an AFT-conv, `labelled` batches of its classes measure what it loses without position biases. Raises ValueError
    on a model that cannot be read and on fewer than two batches, and RuntimeError if attention fails verification.
    """
    convolves = isinstance(model, VisionModel) and model.config.traits.weights == "offset"
    reader = AFTReader(model) if convolves and isinstance(model, VisionModel) else as_reader(model)
    begun = time.perf_counter()
    with evaluating(reader.model):
        kept = Kept(batches)
        sums = gather(reader, kept, progress=progress)
        prefix = tuple("the class token" if i == 0 else f"prefix token {i}" for i in range(reader.prefix))
        found = measures(sums, seed=seed)
        findings = head_findings(found, reader.grid, prefix) + layer_findings(sums, prefix, seed=seed)
        parts, why = logits(reader, kept.first, progress=progress)
        if parts is not None:
            findings += logit_findings(parts, seed=seed)
        if isinstance(reader, AFTReader) and labelled:
            findings += bias_findings(reader, labelled, progress=progress)
    device = str(next(reader.model.parameters()).device)
    seconds = time.perf_counter() - begun
    return Scan(reader.source, ranked(findings), found, sums, parts, why, device=device, seconds=seconds)


def bias_findings(reader: AFTReader, labelled: Batches, *, progress: bool = False) -> list[Finding]:
    """Layers, and heads where there are not too many, without whose position biases the loss surely rises."""
    heads = [(layer, head) for layer in range(len(reader.layers)) for head in range(reader.num_heads)]
    edits = {(layer, None): [one for one in heads if one[0] == layer] for layer in range(len(reader.layers))}
    alone = {one: [one] for one in heads} if len(heads) <= MOST_EDITS else {}
    intact = outcome(reader, labelled)
    made = []
    for (layer, head), chosen in bar([*edits.items(), *alone.items()], "without position biases", shown=progress):
        with without(reader, "no bias", chosen):
            effect = compare(intact, outcome(reader, labelled))
        if effect.loss_interval[0] > 0:
            made.append(_bias(effect, layer, head))
    return made


def _bias(effect: Effect, layer: int, head: int | None) -> Finding:
    name = f"layer {layer}" if head is None else f"head {layer}.{head}"
    low, high = effect.loss_interval
    words = (
        f"without the position bias of {name} the loss rises by {effect.loss:.3f} nats [{low:.3f}, {high:.3f}], "
        f"accuracy changes by {effect.points} points"
    )
    return Finding("bias", layer, head, effect.loss, (low, high), 0.0, low / (1 + low), words)


def command(
    source: str,
    data: str | None = None,
    images: int = 256,
    pretrained: bool = True,
    root: str | None = None,
    device: str = "cpu",
    seed: int = 0,
    out: Path | None = None,
) -> None:
    """Say what the heads of a ViT or AFT-conv do, the strongest findings first, on one page.

    Args:
        source: Folder of a ViT or AFT-conv, the name of one that ships or was trained, timm:NAME, torchvision:NAME or
            hf:NAME_OR_PATH.
        data: Data set whose test images are taken, e.g. images:PATH for any folder; the model's own if left out.
        images: How many of them.
        pretrained: False takes the model's architecture with random weights, as a control.
        root: Folder of downloaded data; data/ if left out.
        device: cpu, cuda or cuda:N.
        seed: Of random weights and of bootstrap samples.
        out: Folder for scan.json and scan.html; if left out reports/NAME, or reports/NAME-random.
    """
    reader = open_reader(source, pretrained=pretrained, device=device, seed=seed)
    name, way = known_data(source, data or reader.data, reader.preprocessing)
    if images < 2:
        raise ValueError(f"images must be 2 or more, for intervals over them, got {images}")
    batches = image_batches(way, name, images=images, batch_size=-(-images // GROUPS), root=root, device=reader.device)
    labelled: Batches = ()
    if isinstance(reader, AFTReader) and name == reader.data and load_data(name, root=root, labelled=False).classes:
        given = image_batches(way, name, images=images, root=root, labelled=True, device=reader.device)
        labelled = [(batch[0], batch[1]) for batch in given]
    found = scan(reader, batches, labelled=labelled, seed=seed, progress=True)
    drawn = f"{name} ({drawn_words(batches)})"
    report(replace(found, data=drawn), out or report_folder(source, *([] if pretrained else ["random"])))
