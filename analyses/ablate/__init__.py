"""How little position does a trained ViT need? Its heads replaced by maps, offsets, kernels and nothing, measured."""

import tempfile
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from aft_lens.extraction import AttentionReader, as_reader
from aft_lens.mode import evaluating
from analyses.ablate.ablation import Ablation
from analyses.ablate.bench import Bench, Row
from analyses.ablate.calibration import calibrate
from analyses.ablate.measure import measure
from analyses.ablate.opened import Setup, measured, opened
from analyses.ablate.plan import RUNGS, Plan, plan_for
from analyses.ablate.rung import Rung
from analyses.ablate.runner import Model, Runner
from analyses.cells import Crew
from analyses.command import report, report_folder
from analyses.explain import open_reader
from analyses.result import published
from analyses.store import Store, fingerprint

__all__ = ["Ablation", "Plan", "Rung", "ablate", "command", "plan_for"]


def ablate(
    model: nn.Module | AttentionReader,
    calibration: Iterable[Any],
    test: Iterable[Any],
    *,
    plan: Plan | None = None,
    classes: bool = True,
    bfloat16: bool = False,
    progress: bool = False,
) -> Ablation:
    """Replace the heads of a ViT that is held in memory; see `Plan` for what is replaced and how it is ranked.

    `calibration` and `test` are batches of (images, labels) as the model takes them: maps, kernels, means and the
    orders damage and greedy come from the first, all scores from the second. With `classes` False labels are not read,
    and scores are cosines of the features with the intact model's. Raises ValueError as `head_positions` does, and
    where the model has no classifier of the labels. The model runs in evaluation mode and is put back after.
    """
    reader = as_reader(model)
    plan = plan or plan_for(reader)
    given, shown = list(calibration), list(test)
    with evaluating(reader.model):
        result = _ablated(reader, given, shown, plan, classes=classes, bfloat16=bfloat16, progress=progress)
    return replace(result, classes="data" if classes else "none", bfloat16=bfloat16)


def _ablated(
    reader: AttentionReader, calibration: list[Any], test: list[Any], plan: Plan, *, classes: bool, bfloat16: bool,
    progress: bool,
) -> Ablation:  # fmt: skip
    """All of it in this process, kept for as long as it takes."""
    found = calibrate(reader, calibration, progress=progress)
    benches: dict[bool, Bench] = {}

    def row(model: Model) -> Row:
        if model.choosing not in benches:
            batches = calibration if model.choosing else test
            benches[model.choosing] = Bench(
                reader, found, batches, classes=classes, bfloat16=bfloat16, seed=plan.seed
            )  # fmt: skip
        return benches[model.choosing].row(dict(model.edits), model.start)

    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(row, fingerprint(plan.seed), Store(Path(folder)), progress=progress)
        return measure(reader, found, plan, runner)


def command(
    source: str,
    data: str | None = None,
    images: int = 500,
    calibration: int = 256,
    choosing: int = 64,
    probe: int = 0,
    labels: Literal["data", "model", "none"] = "data",
    pretrained: bool = True,
    rungs: list[str] = list(RUNGS),  # noqa: B006 - read, never changed
    orders: list[str] = ["explained", "deviation", "random"],  # noqa: B006
    by: str = "offsets:1",
    counts: list[int] | None = None,
    single: list[str] = ["offsets:1"],  # noqa: B006
    layers: list[str] = [],  # noqa: B006
    step: int = 1,
    rounds: int = 0,
    tolerance: float = 1.0,
    minimality: bool = True,
    workers: int = 0,
    ray: str = "",
    gpus: float = 0.0,
    budget: float = 0.0,
    bfloat16: bool = False,
    root: str | None = None,
    device: str = "cpu",
    seed: int = 0,
    label: str = "",
    store: Path | None = None,
    publish: Path | None = None,
    out: Path | None = None,
) -> None:
    """Replace a ViT's heads by averaged maps, offsets, kernels or nothing, and say how many of them can go.

    Args:
        source: Folder of a ViT or AFT-conv, the name of one that ships or was trained, timm:NAME, torchvision:NAME or
            hf:NAME_OR_PATH.
        data: Data set whose training images make what replaces heads, and whose test images measure it; the model's own
            if left out.
        images: Test images.
        calibration: Training images that maps, kernels and means are made from.
        choosing: The first of these, by which the orders damage and greedy choose heads.
        probe: Training images on whose frozen features a linear probe is fitted (logistic regression), for a model
            without a classifier of the data's classes; 0 takes the model's own.
        labels: data; model for agreement with the intact model's classes; none for agreement of features alone (cosine,
            CKA, nearest neighbours), which needs neither classes nor a classifier.
        pretrained: False takes the model's architecture with random weights, as a control.
        rungs: Replacements, a curve each; map, offsets:K, centre:K, random:K, kernel, uniform, mean, resample, zero, or
            attention, which changes nothing.
        orders: Orders in which heads are replaced, the first for all curves; explained, deviation, damage, greedy,
            random.
        by: The replacement that orders are compared by.
        counts: Heads replaced at once, e.g. [9,36]; nine numbers up to all if left out.
        single: Replacements that each head gets alone, e.g. [offsets:1,map]; [] leaves them out.
        layers: Replacements that all heads of each layer get at once.
        step: Heads that a round of the greedy order takes.
        rounds: Of the greedy order; the heads left then follow by their damage in the last one; 0 until none is left.
        tolerance: Points of accuracy that may be lost (of the cosine with labels none).
        minimality: Whether each head within the tolerance, in the order that goes farthest, has its offsets taken away
            again.
        workers: Processes that share the work; 0 does it in this one, or with --ray in one for each processor.
        ray: Address of a Ray cluster whose machines share the work: auto, local or HOST:PORT (needs the ray extra).
        gpus: GPUs of each of its workers, e.g. 0.25 for four on one.
        budget: Seconds for each list of models, to go on with the same command later; 0 is no limit.
        bfloat16: Measure under autocast to bfloat16, two to four times as fast where a processor has it.
        root: Folder of downloaded data; data/ if left out.
        device: cpu, cuda or cuda:N.
        seed: Of random weights, orders and offsets.
        label: What tables and figures call the model; SOURCE if left out.
        store: Folder of what is measured already; OUT/cells if left out.
        publish: JSON to write the result into as well.
        out: Folder for ablate.json, .png, .svg and .html; if left out reports/NAME, or reports/NAME-random.
    """
    reader = open_reader(source, pretrained=pretrained, device=device, seed=seed)
    name = data or reader.data
    if name is None:
        raise ValueError(
            f"{source} is of no known data set; give --data (and --probe 1000, or --labels none if it has no classes)"
        )
    if probe and labels != "data":
        raise ValueError(f"probe needs the data's labels; leave out --labels {labels}")
    plan = plan_for(
        reader, rungs=rungs, orders=orders, by=by, counts=counts, single=single, layers=layers, step=step,
        rounds=rounds, tolerance=tolerance, minimality=minimality, seed=seed,
    )  # fmt: skip
    folder = out or report_folder(source, *([] if pretrained else ["random"]))
    setup = Setup(
        source, name, images, calibration, probe, labels, pretrained, bfloat16, root, device, seed,
        choosing=min(choosing, calibration),
    ).of(reader)  # fmt: skip
    place = store or folder / "cells"
    at_hand = opened(setup, place)
    runner = Runner(
        partial(measured, setup=setup, folder=place), fingerprint(setup), Store(place),
        Crew(workers, ray, gpus, budget), progress=True,
    )  # fmt: skip
    result = replace(
        measure(at_hand.reader, at_hand.calibration, plan, runner), data=name, classes=labels,
        probe=at_hand.probe.words if at_hand.probe else "", device=device, bfloat16=bfloat16,
        threads=torch.get_num_threads(), label=label,
    )  # fmt: skip
    report(result, folder)
    if publish is not None:
        print(f"wrote {published(result, publish, device)}")
