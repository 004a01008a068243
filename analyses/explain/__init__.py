"""Does position explain a head? The fraction of its attention, and what the model loses without the rest."""

from pathlib import Path
from typing import Literal

import torch

from aft_lens.checkpoint import CONFIG, checkpoint_folder, load_checkpoint, read_config
from aft_lens.data import load_data
from aft_lens.extraction import AFTReader, AttentionReader, Preprocessing, image_batches, open_source
from aft_lens.models import seeded_model
from analyses.command import report, report_folder
from analyses.explain.causal import own_labels
from analyses.explain.explanation import Explanation
from analyses.explain.measure import explain
from analyses.explain.plan import Plan, plan_for
from analyses.explain.probe import ProbedReader, fit_probe

BATCH = 64

__all__ = ["Explanation", "Plan", "command", "explain", "open_reader", "plan_for"]


def open_reader(
    source: str, *, pretrained: bool = True, device: torch.device | str = "cpu", seed: int = 0
) -> AttentionReader:
    """A reader of any ViT that `open_source` opens, or of an AFT-conv checkpoint; errors as there."""
    if (checkpoint_folder(source) / CONFIG).is_file():
        loaded = load_checkpoint(source, device)
        if loaded.config.traits.weights == "offset":
            way = Preprocessing.of_record(loaded.data)
            model = loaded.model
            if not pretrained:
                model = seeded_model(loaded.config, seed).to(model.head.weight.device).eval()
            return AFTReader(model, source, preprocessing=way, data=loaded.data["name"])
    return open_source(source, pretrained=pretrained, device=device, seed=seed)


def command(
    source: str,
    data: str | None = None,
    images: int = 256,
    pretrained: bool = True,
    window: int | None = None,
    layers: list[int] | None = None,
    labels: Literal["data", "model"] = "data",
    probe: int = 0,
    single: bool = True,
    edits: list[str] | None = None,
    counts: list[int] | None = None,
    bfloat16: bool = False,
    root: str | None = None,
    device: str = "cpu",
    seed: int = 0,
    out: Path | None = None,
) -> None:
    """Print how much of each head position explains and what replacing heads costs, and save all with figures.

    Args:
        source: Folder of a ViT or AFT-conv, the name of one that ships or was trained, timm:NAME, torchvision:NAME or
            hf:NAME_OR_PATH.
        data: Data set whose training images give maps and test images accuracies; the model's own if left out.
        images: Training images, and test images, at most.
        pretrained: False takes the model's architecture with random weights, as a control.
        window: Side of the window-only replacement, odd, in patches; about half the grid's side if left out.
        layers: Layers whose heads are edited, e.g. [0,5,11]; all if left out.
        labels: data, or model for agreement with the intact model where the data has other classes.
        probe: Training images on whose frozen features a linear probe is fitted (logistic regression), for a model
            without a classifier of the data's classes; 0 takes the model's own.
        single: False leaves out the edits of one head at a time, which take nearly all of the time.
        edits: Edits to make, e.g. [map,offset]: map, uniform, other, window, offset; all if left out.
        counts: Heads edited at once, e.g. [9,36]; twelve numbers up to all if left out.
        bfloat16: Measure accuracies under autocast to bfloat16, two to four times as fast where a processor has it.
        root: Folder of downloaded data; data/ if left out.
        device: cpu, cuda or cuda:N.
        seed: Of random weights.
        out: Folder for explain.json, .png, .svg and .html; if left out reports/NAME, or reports/NAME-random.
    """
    reader = open_reader(source, pretrained=pretrained, device=device, seed=seed)
    name, way = data or reader.data, reader.preprocessing
    if name is None or way is None:
        raise ValueError(
            f"{source} is of no known data set; give --data (and --labels model or --probe 1000 if its classes differ)"
        )
    folder = checkpoint_folder(source)
    if labels == "data" and not probe and (folder / CONFIG).is_file():
        load_data(name, root=root).check_fits(read_config(folder).data)
    if probe and labels == "model":
        raise ValueError("probe needs the data's labels; leave out --labels model")
    if probe:
        given = image_batches(way, name, images=probe, split="train", batch_size=BATCH, root=root, labelled=True)
        reader = ProbedReader(reader, fit_probe(reader, given, progress=True))
    plan = plan_for(
        reader,
        window=window,
        layers=layers,
        edits=edits,
        single=single,
        counts=counts,
        labels=labels,
        data=name,
        bfloat16=bfloat16,
    )
    calibration, test = (
        [(x, y) for x, y in image_batches(
            way, name, images=images, split=split, batch_size=BATCH, root=root, labelled=True
        )]
        for split in ("train", "test")
    )  # fmt: skip
    if labels == "model":
        calibration, test = list(own_labels(reader, calibration)), list(own_labels(reader, test))
    folder = out or report_folder(source, *([] if pretrained else ["random"]))
    report(explain(reader, calibration, test, plan=plan, progress=True), folder)
