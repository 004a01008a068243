"""One run of the study, from training to its JSON."""

import json
import logging
import os
import shutil
import time
import warnings
from typing import Any

import torch

from aft_lens.checkpoint import CARD, commit, load_checkpoint, read_metrics
from aft_lens.data import load_data, save_samples
from aft_lens.models.transfer import from_vit
from aft_lens.training import train
from aft_lens.training.run import state_folder
from analyses.provenance import environment
from analyses.study.measure import places, scores, scores_by_size
from analyses.study.plan import KEPT, Task

THREADS = 2
"""CPU threads of a run whose device is a GPU."""


def execute(task: Task) -> dict[str, Any]:
    """Train (or go on with) a run, measure it, write its JSON and return that.

    What nothing needs later is removed: the resume file, and the weights but of `KEPT` and of runs that ship.
    """
    with warnings.catch_warnings():
        quiet()
        return _execute(task)


def _execute(task: Task) -> dict[str, Any]:
    device = torch.device("cuda" if task.recipe.trainer.accelerator != "cpu" and torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        torch.set_num_threads(THREADS)
        torch.cuda.reset_peak_memory_stats()
    torch.compiler.reset()
    begun = time.perf_counter()
    resume = any(state_folder(task.path).glob("epoch=*.ckpt"))
    if not resume:
        for stale in (task.path, state_folder(task.path)):
            shutil.rmtree(stale, ignore_errors=True)
    start = None
    if task.start is not None and not resume:
        start = from_vit(load_checkpoint(task.start).model, task.recipe.model).model
    train(task.recipe, task.path, resume=resume, progress=False, start=start)
    seconds = time.perf_counter() - begun
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else None
    found = _measure(task, device)
    rows = read_metrics(task.path)
    rates = [row["images_per_second"] for row in rows[1:] or rows]
    record = {
        **task.identity(),
        "seed": task.recipe.seed,
        "long": task.long,
        **found,
        "val_accuracy": 100 * rows[-1]["val_accuracy"],
        "train_loss": rows[-1]["train_loss"],
        "images_per_second": sum(rates) / len(rates),
        "seconds": seconds,
        "resumed": resume,
        "peak_memory_mib": None if peak is None else peak / 2**20,
        **environment(device),
        "commit": commit(),
    }
    fresh = task.result.with_suffix(".writing")
    fresh.write_text(json.dumps(record, indent=1) + "\n")
    os.replace(fresh, task.result)
    shutil.rmtree(state_folder(task.path), ignore_errors=True)
    if not task.long and task.configuration.name not in KEPT:
        shutil.rmtree(task.path)
    return record


def _measure(task: Task, device: torch.device) -> dict[str, Any]:
    """Everything that is read off the trained weights; a run that ships also gets its samples and test accuracy."""
    model = load_checkpoint(task.path, device).model
    root = task.recipe.data.root
    data = load_data(task.recipe.data.name, root=root, img_size=task.recipe.model.img_size)
    found: dict[str, Any] = scores(model, data, device)
    found["sizes"] = scores_by_size(model, data, root, device, task.configuration.sizes)
    found["places"] = places(model, data, device)
    found["parameters"] = sum(p.numel() for p in model.parameters())
    if task.long:
        save_samples(data, task.path)
        with (task.path / CARD).open("a") as card:
            card.write(f"- test_accuracy: {found['accuracy'] / 100:.4f} on {len(data.test)} images\n")
    return found


def quiet() -> None:
    """Keep Lightning from telling every run's setup; its advice on loaders and folders is known here."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=UserWarning, module="lightning")
    warnings.filterwarnings("ignore", message="Checkpoint directory", category=UserWarning)
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")  # Lightning's own use of PyTorch
