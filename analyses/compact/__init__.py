"""A compact ViT that runs: heads that position explains compute by gathering or pooling, without query and key."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from torch import nn

from aft_lens.checkpoint import save_checkpoint
from aft_lens.data import load_data
from aft_lens.extraction import AttentionReader, Preprocessing, as_reader, image_batches, open_source
from aft_lens.extraction.plain import plain_vit
from aft_lens.mode import evaluating
from aft_lens.models import VisionModel
from aft_lens.text_files import read_json
from analyses.ablate.calibration import calibrate
from analyses.ablate.measure import ranked_by
from analyses.ablate.rung import Rung
from analyses.command import known_data, report, report_folder
from analyses.compact.convert import compact_vit, renormalised, with_classifier
from analyses.compact.forms import forms
from analyses.compact.result import Compacted
from analyses.compact.tune import To, Tuning
from analyses.explain.causal import Head
from analyses.explain.probe import ProbedReader, fit_probe
from analyses.result import published

__all__ = ["Compacted", "command", "compact", "compact_vit"]

BATCH = 16
MODEL = "model"
"""Folder of the checkpoint, below that of the figures."""


def compact(
    model: nn.Module | AttentionReader, batches: Iterable[Any], heads: Mapping[Head, str], *, seed: int = 0,
    progress: bool = False,
) -> VisionModel:  # fmt: skip
    """A ViT without the query and key projections of some heads, made from one that is held in memory.

    `heads` says by (layer, head) what takes its place, as `aft-lens ablate` names it: offsets:K, map, kernel, uniform,
    mean, zero. `batches` are images `b c y x`, or tuples that start with them, which averages are made from. The result
    is a model of ours of the images' size, and is saved by `save_checkpoint`; `compact.tune.tuned` trains it further,
    to the original's features. Raises ValueError on a model that
    `plain_vit` does not take, and on a head or word that there is not.
    """
    reader = as_reader(model)
    given = [batch if isinstance(batch, tuple | list) else (batch, None) for batch in batches]
    with evaluating(reader.model):
        device = next(reader.model.parameters()).device
        plain = plain_vit(reader, given[0][0][:2].to(device))
        found = calibrate(reader, given, progress=progress)
    return compact_vit(plain, found, {head: Rung.read(word) for head, word in heads.items()}, seed=seed)


def command(
    source: str,
    data: str | None = None,
    rungs: list[str] = ["offsets:1"],  # noqa: B006 - read, never changed
    count: int = 0,
    order: str = "explained",
    ablation: Path | None = None,
    images: int = 64,
    calibration: int = 64,
    probe: int = 0,
    labels: Literal["data", "none"] = "data",
    tune: To | None = None,
    tune_images: int = 1024,
    epochs: int = 2,
    rate: float = 1e-4,
    grid: tuple[int, int] | None = None,
    pretrained: bool = True,
    batch_sizes: list[int] = [1, 16],  # noqa: B006
    seconds: float = 1.0,
    root: str | None = None,
    device: str = "cpu",
    seed: int = 0,
    label: str = "",
    publish: Path | None = None,
    out: Path | None = None,
) -> None:
    """Replace a ViT's heads for good: without query and key, checked against the masked model, timed and saved.

    Args:
        source: Folder of a ViT, the name of one that ships or was trained, timm:NAME, torchvision:NAME or
            hf:NAME_OR_PATH.
        data: Data set whose training images make what replaces heads, and whose test images check it; the model's own
            if left out.
        rungs: What heads are replaced by, as in ablate; each is measured, and the first is saved.
        count: Heads to replace; a third of them if left out, or with --ablation those within its tolerance.
        order: Which heads come first; explained, deviation or random, or one that the ablation measured.
        ablation: An ablate.json, whose order is taken.
        images: Test images.
        calibration: Training images that maps, kernels and means are made from.
        probe: Training images of a linear probe, which becomes the classifier; 0 keeps the model's own, if any.
        labels: none where the model has no classifier of the data's classes; features are compared alone.
        tune: Train each compact form further: features distils the original's, labels fine-tunes to the data's classes.
        tune_images: Training images for that.
        epochs: Passes over them.
        rate: Learning rate.
        grid: Patches (rows, columns) to run at, e.g. [37,37]; the model's own if left out.
        pretrained: False takes random weights, to measure speed with.
        batch_sizes: Batches to time.
        seconds: For each time.
        root: Folder of downloaded data; data/ if left out.
        device: cpu, cuda or cuda:N.
        seed: Of random weights, orders and offsets.
        label: What tables and figures call the model; SOURCE if left out.
        publish: JSON to write the result into as well.
        out: Folder for the checkpoint (model), compact.json, .png, .svg and .html; reports/NAME/compact if left out.
    """
    tuning = None if tune is None else Tuning(tune, epochs, rate)
    if tune == "labels" and labels == "none":
        raise ValueError("tune labels needs the data's labels; give --tune features, or leave out --labels none")
    folder = out or report_folder(source, *([] if pretrained else ["random"])) / "compact"
    if (folder / MODEL).exists():
        raise FileExistsError(f"{folder / MODEL} holds a model; choose another --out, or remove it")
    reader = open_source(source, pretrained=pretrained, grid=grid, device=device, seed=seed)
    advice = " (and --probe 1000, or --labels none)"
    name, way = known_data(source, data or reader.data, reader.preprocessing, advice)
    classes = labels == "data"

    def given(split: str, number: int, *, labelled: bool = False) -> Any:
        return image_batches(
            way, name, images=number, split=split, batch_size=BATCH, root=root, labelled=classes or labelled
        )  # fmt: skip

    plain = plain_vit(reader, next(iter(given("train", 2)))[0].to(device))
    words = ""
    if probe:
        fitted = fit_probe(reader, given("train", probe, labelled=True), seed=seed, progress=True)
        reader, plain, words = (
            ProbedReader(reader, fitted),
            with_classifier(plain, fitted.weight, fitted.bias),
            fitted.words,
        )
    found = calibrate(reader, given("train", calibration), progress=True)
    heads, how = _chosen(found, ablation, order, count, seed)
    edits = {rung: dict.fromkeys(heads, Rung.read(rung)) for rung in rungs}
    test = [(batch[0], batch[1]) for batch in given("test", images)]
    if classes and plain.config.num_classes <= max(int(of.max()) for _, of in test):
        raise ValueError(f"{source} has {plain.config.num_classes} classes, too few for {name}; give --probe 1000, or "
                         "--labels none")  # fmt: skip
    train = [(batch[0], batch[1]) for batch in given("train", tune_images)] if tuning else []
    measured, models = forms(
        reader, plain, found, edits, test, classes=classes, batch_sizes=batch_sizes, seconds=seconds, seed=seed,
        tuning=tuning, train=train, progress=True,
    )  # fmt: skip
    config = plain.config
    result = Compacted(
        source, tuple(measured), heads, config.depth * config.num_heads, how, config.img_size,
        config.prefix + config.grid_size**2, sum(len(each) for each, _ in test), found.positions.images, name, words,
        f"{tuning}, {tune_images} training images" if tuning else "", device, label, os.getloadavg()[0],
    )  # fmt: skip
    report(result, folder)
    print(f"wrote {_saved(models[0], folder / MODEL, source, name, way, classes, root, seed, rungs[0], heads)}")
    if publish is not None:
        print(f"wrote {published(result, publish, device)}")


def _chosen(
    found: Any, ablation: Path | None, order: str, count: int, seed: int
) -> tuple[tuple[Head, ...], str]:  # fmt: skip
    """The heads to replace, and how they were chosen."""
    depth, num_heads = found.deviation.shape
    if ablation is None:
        every = [(layer, head) for layer in range(depth) for head in range(num_heads)]
        ranked, most = ranked_by(order, every, found, seed), max(1, len(every) // 3)
    else:
        curve = _curve(ablation, order)
        ranked, most = tuple((layer, head) for layer, head in curve["heads"]), curve["within"]
        if sorted(ranked) != sorted((layer, head) for layer in range(depth) for head in range(num_heads)):
            raise ValueError(f"{ablation} is of a model of other layers and heads; give that of this one")
    number = count or most
    if not 1 <= number <= len(ranked):
        raise ValueError(f"count must be from 1 to {len(ranked)}, the heads that there are, got {number}; give --count")
    return ranked[:number], order


def _curve(path: Path, order: str) -> dict[str, Any]:
    """A curve of an ablation's record, in that order, of the replacement that orders are compared by (the last)."""
    curves = read_json(path).get("curves", [])
    found = [one for one in curves if one.get("order") == order]
    if not found:
        orders = ", ".join(dict.fromkeys(one["order"] for one in curves)) or "none"
        raise ValueError(f"{path} has no order {order}, it has {orders}; give --order")
    return dict(found[-1])


def _saved(
    model: VisionModel, path: Path, source: str, data: str, way: Preprocessing, classes: bool, root: str | None,
    seed: int, rung: str, heads: tuple[Head, ...],
) -> Path:  # fmt: skip
    """Write the checkpoint; with classes its images are normalised as its data set's are, so that all commands fit."""
    record: dict[str, Any] = {"name": data, "mean": list(way.mean), "std": list(way.std), "classes": []}
    if classes:
        loaded = load_data(data, root=root, img_size=model.config.img_size)
        model = renormalised(model, (way.mean, way.std), (loaded.mean, loaded.std))
        record = loaded.record()
    record |= {"in_chans": model.config.in_chans, "img_size": model.config.img_size}
    recipe = {"compacted_from": source, "replaced_by": rung, "heads": [f"{layer}.{head}" for layer, head in heads]}
    return save_checkpoint(path, model, data=record, recipe=recipe, seed=seed, metrics=[], start=source)
