"""One run of the study, from training to its JSON."""

import shutil
import time

import torch

from aft_lens.checkpoint import CARD, commit, load_checkpoint, read_metrics
from aft_lens.data import DataSource, load_data, save_samples
from aft_lens.models.transfer import from_vit
from aft_lens.training import quiet_lightning, train
from aft_lens.training.run import remove_run, state_folder
from analyses.provenance import environment
from analyses.study.measure import places, scores, scores_by_size
from analyses.study.plan import KEPT, Task
from analyses.study.record import Run

THREADS = 2
"""CPU threads of a run whose device is a GPU."""


def execute(task: Task) -> Run:
    """Train (or go on with) a run, measure it, write its JSON and return that.

    What nothing needs later is removed: the resume file, and the weights but of `KEPT` and of runs that ship.
    """
    with quiet_lightning():
        return _execute(task)


def _execute(task: Task) -> Run:
    device = torch.device("cuda" if task.recipe.trainer.accelerator != "cpu" and torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        torch.set_num_threads(THREADS)
        torch.cuda.reset_peak_memory_stats()
    torch.compiler.reset()
    begun = time.perf_counter()
    resume = any(state_folder(task.path).glob("epoch=*.ckpt"))
    if not resume:
        remove_run(task.path)
    start = None
    if task.start is not None and not resume:
        start = from_vit(load_checkpoint(task.start).model, task.recipe.model).model
    train(task.recipe, task.path, resume=resume, progress=False, start=start)
    seconds = time.perf_counter() - begun
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else None
    model = load_checkpoint(task.path, device).model
    root = task.recipe.data.root
    data = load_data(task.recipe.data.name, root=root, img_size=task.recipe.model.img_size)
    found = scores(model, data, device)
    rows = read_metrics(task.path)
    rates = [row["images_per_second"] for row in rows[1:] or rows]
    run = Run(
        **task.identity(),
        seed=task.recipe.seed,
        long=task.long,
        accuracy=found.accuracy,
        loss=found.loss,
        sizes=scores_by_size(model, data, root, device, task.configuration.sizes),
        places=places(model, data, device),
        parameters=sum(p.numel() for p in model.parameters()),
        val_accuracy=100 * rows[-1]["val_accuracy"],
        train_loss=rows[-1]["train_loss"],
        images_per_second=sum(rates) / len(rates),
        seconds=seconds,
        resumed=resume,
        peak_memory_mib=None if peak is None else peak / 2**20,
        **environment(device),
        commit=commit(),
    )
    if task.long:
        _describe(task, data, run)
    task.store.put(task.name, task.fingerprint, run.record())
    shutil.rmtree(state_folder(task.path), ignore_errors=True)
    if not task.long and task.configuration.name not in KEPT:
        shutil.rmtree(task.path)
    return run


def _describe(task: Task, data: DataSource, run: Run) -> None:
    """Give a run that ships samples of its data and a card with its test accuracy."""
    save_samples(data, task.path)
    with (task.path / CARD).open("a") as card:
        card.write(f"- test_accuracy: {run.accuracy / 100:.4f} on {len(data.test)} images\n")
