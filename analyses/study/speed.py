"""Images a second of a training run that has the device to itself."""

import json
import shlex
import sys
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from aft_lens.checkpoint import read_metrics
from aft_lens.models import ModelConfig
from aft_lens.training import Recipe, train
from analyses.provenance import environment
from analyses.study.plan import Study, tasks
from analyses.study.worker import quiet

NAME = "training_speed.json"
STEPS, EPOCHS = 100, 3
"""Of each measurement; the first epoch, which compiles and warms up, does not count."""


def run(study: Study, *, workers: int, budget: float, out: Path) -> None:
    """Measure the study's AFT-conv and ViT and the tiny AFT-conv, as they are, then as the study asks; print and save.

    A study that compiles and replays CUDA graphs is measured with compiling alone too.
    """
    base = {task.configuration.name: task.recipe for task in tasks(replace(study, only=(), seeds=1))}
    conv, device = base["conv"], torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = {
        "AFT-conv tiny 11/32": replace(conv, model=_tiny(conv.model)),
        "AFT-conv of the study": conv,
        "ViT of the study": base["vit"],
    }
    if study.cuda_graphs and device.type != "cuda":
        raise ValueError("study.cuda_graphs needs a CUDA device, found none; set it to false")
    limit = study.limit_batches if isinstance(study.limit_batches, int) else STEPS
    record: dict[str, Any] = {
        "command": "aft-lens " + shlex.join(sys.argv[1:]),
        **environment(device),
        "seed": 0,
        "method": f"{EPOCHS} epochs of {limit} steps by `train`, data on the device; rates of all epochs but the first",
        "rows": [],
    }
    out.mkdir(parents=True, exist_ok=True)
    print(f"{'model':24} {'precision':12} compiled graphs  images/s  peak MiB")
    asked = bool(study.compile)
    for compiled, graphs in dict.fromkeys([(False, False), (asked, False), (asked, study.cuda_graphs)]):
        for name, recipe in chosen.items():
            where = replace(recipe.trainer, epochs=EPOCHS, compile=compiled, cuda_graphs=graphs, limit_batches=limit)
            row = {"model": name, **_measure(replace(recipe, trainer=where), device)}
            record["rows"].append(row)
            (out / NAME).write_text(json.dumps(record, indent=1) + "\n")
            peak, rate = row["peak_memory_mib"], row["images_per_second"][-1]
            shown = "-" if peak is None else f"{peak:,.0f}"
            print(f"{name:24} {where.precision:12} {compiled!s:8} {graphs!s:6} {rate:9,.0f} {shown:>9}", flush=True)
    print(out / NAME)


def _measure(recipe: Recipe, device: torch.device) -> dict[str, Any]:
    """Train for a moment and give the rates of all epochs but the first."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        quiet()
        torch.compiler.reset()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        rows = read_metrics(train(recipe, Path(folder) / "run", progress=False))
    return {
        "precision": recipe.trainer.precision,
        "compiled": recipe.trainer.compile,
        "cuda_graphs": recipe.trainer.cuda_graphs,
        "batch_size": recipe.data.batch_size,
        "images_per_second": [row["images_per_second"] for row in rows[1:]],
        "peak_memory_mib": torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else None,
    }


def _tiny(model: ModelConfig) -> ModelConfig:
    """The paper's tiny AFT-conv 11/32 on the study's images; at patch 2 of 28 x 28 they have its T = 196."""
    return replace(model, embed_dim=192, depth=12, num_heads=32, mlp_ratio=4.0)
