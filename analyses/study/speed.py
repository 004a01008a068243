"""Images a second of a training run that has the device to itself."""

import json
import shlex
import sys
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import torch

from aft_lens.checkpoint import read_metrics, versions
from aft_lens.models import ModelConfig
from aft_lens.training import train
from analyses.study.plan import Study, tasks
from analyses.study.worker import hardware, quiet

NAME = "training_speed.json"
STEPS, EPOCHS = 100, 3
"""Of each measurement; the first epoch, which compiles and warms up, does not count."""


def run(study: Study, *, workers: int, budget: float, out: Path) -> None:
    """Measure the study's AFT-conv and ViT and the tiny AFT-conv, as they are and compiled; print and save."""
    base = {task.configuration.name: task.recipe for task in tasks(replace(study, only=(), seeds=1))}
    conv = base["conv"]
    chosen = {
        "AFT-conv tiny 11/32": replace(conv, model=_tiny(conv.model)),
        "AFT-conv of the study": conv,
        "ViT of the study": base["vit"],
    }
    limit = study.limit_batches if isinstance(study.limit_batches, int) else STEPS
    rows = []
    print(f"{'model':24} {'precision':12} compiled  images/s  peak MiB")
    for name, recipe in chosen.items():
        for compiled in (False, True) if study.compile else (False,):
            where = replace(recipe.trainer, epochs=EPOCHS, compile=compiled, limit_batches=limit)
            with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
                quiet()
                torch.compiler.reset()
                if torch.cuda.is_available():
                    torch.cuda.reset_peak_memory_stats()
                path = train(replace(recipe, trainer=where), Path(folder) / "run", progress=False)
                rates = [row["images_per_second"] for row in read_metrics(path)[1:]]
            peak = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else None
            rows.append(
                {
                    "model": name,
                    "precision": where.precision,
                    "compiled": compiled,
                    "batch_size": recipe.data.batch_size,
                    "images_per_second": rates,
                    "peak_memory_mib": peak,
                }
            )
            shown = "-" if peak is None else f"{peak:,.0f}"
            print(f"{name:24} {where.precision:12} {compiled!s:8} {rates[-1]:9,.0f} {shown:>9}", flush=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    record = {
        "command": "aft-lens " + shlex.join(sys.argv[1:]),
        "hardware": hardware(device),
        "versions": versions(),
        "seed": 0,
        "method": f"{EPOCHS} epochs of {limit} steps by `train`, data on the device; rates of all epochs but the first",
        "rows": rows,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / NAME).write_text(json.dumps(record, indent=1) + "\n")
    print(out / NAME)


def _tiny(model: ModelConfig) -> ModelConfig:
    """The paper's tiny AFT-conv 11/32 on the study's images; at patch 2 of 28 x 28 they have its T = 196."""
    return replace(model, embed_dim=192, depth=12, num_heads=32, mlp_ratio=4.0)
