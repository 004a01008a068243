"""One run of the study, from training to its row."""

import gc
import shutil
import time
from datetime import UTC, datetime
from typing import Any

import torch

from aft_lens.checkpoint import commit, load_checkpoint, note_test_accuracy, read_first, read_metrics
from aft_lens.data import DataSource, load_data, save_samples
from aft_lens.models.transfer import from_vit
from aft_lens.training import train
from aft_lens.training.run import remove_run, state_folder
from analyses.learned.measure import learned
from analyses.provenance import environment
from analyses.study.measure import accuracy_at, accuracy_pruned, places, scores
from analyses.study.plan import Task
from analyses.study.record import Run, packed

THREADS = 2
"""CPU threads of a run whose device is a GPU."""
STARTS = ("vit",)
"""Configurations of the plans "claims" and "tuning" whose weights others start from."""
_compiled: str | None = None
"""Configuration of this process's last run."""


def execute(task: Task) -> dict[str, Any]:
    """Train (or go on with) a run, measure it, and return its row.

    What nothing needs later is removed: the resume file, and the weights but of the models that ship and of `STARTS`.
    """
    device = torch.device("cuda" if task.recipe.trainer.accelerator != "cpu" and torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        torch.set_num_threads(THREADS)
        torch.cuda.reset_peak_memory_stats()
    _begin(task)
    started, begun = datetime.now(UTC), time.perf_counter()
    resume = any(state_folder(task.path).glob("epoch=*.ckpt"))
    if not resume:
        remove_run(task.path)
    start = None
    if task.start is not None and not resume:
        start = from_vit(load_checkpoint(task.start).model, task.recipe.model, seed=task.recipe.seed).model
    train(task.recipe, task.path, resume=resume, progress=False, start=start)
    seconds = time.perf_counter() - begun
    peak = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else None
    model = load_checkpoint(task.path, device).model
    name, root = task.recipe.data.name, task.recipe.data.root
    data = load_data(name, root=root, img_size=task.recipe.model.img_size)
    found = scores(model, data, device)
    rows = read_metrics(task.path)
    rates = [row["images_per_second"] for row in rows[1:] or rows]
    run = Run(
        **task.identity(),
        seed=task.recipe.seed,
        accuracy=100 * found.accuracy,
        loss=float(found.loss.mean()),
        right=packed(found.right),
        images=len(found.right),
        sizes=accuracy_at(model, name, root, device) if task.configuration.crops else {},
        pruned=accuracy_pruned(model, data, device, task.configuration.keeps),
        places=places(model, data, device, learned(model, read_first(task.path))),
        parameters=sum(p.numel() for p in model.parameters()),
        val_accuracy=100 * rows[-1]["val_accuracy"],
        train_loss=rows[-1]["train_loss"],
        images_per_second=sum(rates) / len(rates),
        seconds=seconds,
        resumed=resume,
        peak_memory_mib=peak,
        **environment(device),
        commit=task.commit or commit(),
        started=started.isoformat(timespec="seconds"),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    shutil.rmtree(state_folder(task.path), ignore_errors=True)
    if task.plan == "long":
        _describe(task, data, run)
    elif not (task.plan in ("claims", "tuning") and task.configuration.name in STARTS):
        shutil.rmtree(task.path)
    return run.record()


def _begin(task: Task) -> None:
    """Forget what a process compiled for another kind of model, and free what its last run left on the device.

    Runs of one kind share their compiled blocks, which took a run longer to make than to train with.
    """
    global _compiled
    if _compiled not in (None, task.configuration.name):
        torch.compiler.reset()
    _compiled = task.configuration.name
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _describe(task: Task, data: DataSource, run: Run) -> None:
    """Give a run that ships samples of its data and a card with its test accuracy."""
    save_samples(data, task.path)
    note_test_accuracy(task.path, run.accuracy / 100, run.images)
