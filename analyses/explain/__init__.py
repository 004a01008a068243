"""Does position explain a head? The fraction of its attention, and what the model loses without the rest."""

import sys
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from aft_lens.checkpoint import CONFIG, load_checkpoint
from aft_lens.extraction import AFTReader, AttentionReader, Preprocessing, image_batches, open_source
from analyses.explain.causal import own_labels
from analyses.explain.core import WORDS, Explanation, explain
from analyses.figures import report_folder, table

BATCH = 64

__all__ = ["Explanation", "command", "explain", "open_reader"]


def open_reader(
    source: str, *, pretrained: bool = True, device: torch.device | str = "cpu", seed: int = 0
) -> AttentionReader:
    """A reader of any ViT that `open_source` opens, or of an AFT-conv checkpoint; errors as there."""
    if (Path(source) / CONFIG).is_file():
        loaded = load_checkpoint(source, device)
        if loaded.config.traits.weights == "offset":
            size, mean, std = loaded.config.img_size, tuple(loaded.data["mean"]), tuple(loaded.data["std"])
            way = Preprocessing((size, size), mean, std, crop=0.875)
            return AFTReader(loaded.model, source, preprocessing=way, data=loaded.data["name"])
    return open_source(source, pretrained=pretrained, device=device, seed=seed)


def command(
    source: str,
    data: str | None = None,
    images: int = 256,
    pretrained: bool = True,
    window: int | None = None,
    layers: list[int] | None = None,
    labels: Literal["data", "model"] = "data",
    root: Path | None = None,
    device: str = "cpu",
    out: Path | None = None,
) -> None:
    """Print how much of each head position explains and what replacing heads costs, and save all with figures.

    Args:
        source: A checkpoint folder (ViT or AFT-conv), timm:NAME, torchvision:NAME or hf:NAME_OR_PATH.
        data: Data set whose training images give maps and test images accuracies; the model's own if left out.
        images: Training images, and test images, at most.
        pretrained: False takes another library's architecture with random weights, as a control.
        window: Side of the window-only replacement, odd, in patches; about half the grid's side if left out.
        layers: Layers whose heads are edited, e.g. [0,5,11]; all if left out.
        labels: data, or model for agreement with the intact model where the data has other classes.
        root: Folder of downloaded data.
        device: cpu or cuda.
        out: Folder for explain.json, .png, .svg and .html; reports/NAME if left out.
    """
    reader = open_reader(source, pretrained=pretrained, device=device)
    name = data or reader.data
    if name is None or reader.preprocessing is None:
        raise ValueError(f"{source} is of no known data set; give --data (and --labels model if its classes differ)")
    calibration, test = (
        [(x, y) for x, y in image_batches(
            reader.preprocessing, name, images=images, split=split, batch_size=BATCH, root=root
        )]
        for split in ("train", "test")
    )  # fmt: skip
    if labels == "model":
        calibration, test = list(own_labels(reader, calibration)), list(own_labels(reader, test))
    result = explain(reader, calibration, test, window=window, labels=labels, layers=layers, progress=True)
    print(report(result, name))
    line = "aft-lens explain " + " ".join(sys.argv[2:] if sys.argv[1:2] == ["explain"] else [source])
    for path in result.save(out or report_folder(source), command=line):
        print(f"wrote {path}")


def report(result: Explanation, data: str) -> str:
    """Definitions, a row for each layer, and the end of each curve."""
    positions, intact = result.positions, result.intact
    low, high = intact.interval
    depth = len(positions.maps)
    lines = [
        f"{result.source} on {data}: maps from {positions.images} training images; {len(intact.right)} test images",
        f"intact {'agreement' if result.labels == 'model' else 'accuracy'} {100 * intact.accuracy:.2f} % "
        f"[{100 * low:.2f}, {100 * high:.2f}]; intervals 95 %, changes paired by image",
        "explained by offset alone, mean of the layer's heads: of the variance about uniform (0 to 1), and of the",
        "information KL(attention || uniform); then the head whose edit costs most: change of accuracy (points) / of",
        "loss (nats)",
    ]
    rows = []
    for layer in range(depth):
        row = [str(layer), *(_mean(values[layer].numpy()) for values in (positions.variance, positions.divergence))]
        for edit in result.single:
            row.append(_worst(result, edit, layer))
        rows.append(row)
    lines.append(table(["layer", "variance", "information", *(WORDS[edit] for edit in result.single)], rows))
    lines.append(f"all {result.counts[-1]} heads at once, change of accuracy (points):")
    lines += [
        f"  {WORDS[edit]:<24} {100 * row[-1].change:+.2f} "
        f"[{100 * row[-1].interval[0]:+.2f}, {100 * row[-1].interval[1]:+.2f}]"
        for edit, row in result.cumulative.items()
    ]
    return "\n".join(lines)


def _mean(values: np.ndarray) -> str:
    """Mean over heads that attend other than uniformly."""
    return "-" if np.isnan(values).all() else f"{np.nanmean(values):.3f}"


def _worst(result: Explanation, edit: str, layer: int) -> str:
    """Accuracy and loss change of the head whose edit costs the most loss."""
    if layer not in result.layers:
        return "-"
    effects = result.single[edit][result.layers.index(layer)]
    worst = max(effects, key=lambda effect: effect.loss)
    return f"{100 * worst.change:+.2f} / {worst.loss:+.4f}"
