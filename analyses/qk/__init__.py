"""Position in Q K', not only in attention: how much of each head's logits is place, content, or both."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from aft_lens.extraction import AttentionReader, as_reader, drawn_words, image_batches, open_source
from aft_lens.mode import evaluating
from analyses.command import known_data, report, report_folder
from analyses.explain.position import head_positions
from analyses.qk.parts import Parts, split_logits
from analyses.qk.result import QK
from analyses.result import published

BATCH = 16

__all__ = ["QK", "Parts", "command", "qk"]


def qk(model: nn.Module | AttentionReader, batches: Iterable[Tensor | Sequence[Any]], *, progress: bool = False) -> QK:
    """Split the logits of a ViT's heads over images; `batches` are images `b c y x`, or tuples that start with them.

    Beside each head stands the share of its attention that offsets explain. Raises as `split_logits` does.
    """
    reader = as_reader(model)
    given = [batch if isinstance(batch, tuple | list) else (batch,) for batch in batches]
    with evaluating(reader.model):
        parts = split_logits(reader, given, progress=progress)
        explained = head_positions(reader, given, progress=progress).variance.numpy()
    device = str(next(reader.model.parameters()).device)
    return QK(reader.source, parts, explained, reader.grid, device=device)


def command(
    source: str,
    data: str | None = None,
    images: int = 128,
    grid: tuple[int, int] | None = None,
    pretrained: bool = True,
    root: str | None = None,
    device: str = "cpu",
    seed: int = 0,
    label: str = "",
    publish: Path | None = None,
    out: Path | None = None,
) -> None:
    """Say how much of each head's logits Q K' is place, content, or both, beside what offsets explain of its attention.

    Args:
        source: Folder of a ViT, the name of one that ships or was trained, timm:NAME, torchvision:NAME or
            hf:NAME_OR_PATH.
        data: Data set whose test images are taken, e.g. images:PATH for any folder; the model's own if left out.
        images: How many of them.
        grid: Patches (rows, columns) to run at, e.g. [24,24]; the model's own if left out.
        pretrained: False takes random weights, as a control.
        root: Folder of downloaded data; data/ if left out.
        device: cpu, cuda or cuda:N.
        seed: Of random weights.
        label: What tables and figures call the model; SOURCE if left out.
        publish: JSON to write the result into as well.
        out: Folder for qk.json, .png, .svg and .html; if left out reports/NAME, or reports/NAME-random.
    """
    reader = open_source(source, pretrained=pretrained, grid=grid, device=device, seed=seed)
    name, way = known_data(source, data or reader.data, reader.preprocessing)
    batches = image_batches(way, name, images=images, batch_size=BATCH, root=root)
    found = replace(qk(reader, batches, progress=True), data=f"{name} ({drawn_words(batches)})", label=label)
    report(found, out or report_folder(source, *([] if pretrained else ["random"])))
    if publish is not None:
        print(f"wrote {published(found, publish, device)}")
