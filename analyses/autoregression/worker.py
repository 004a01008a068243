"""One run of the tables in small, from training to its row."""

import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from typing import Any

import torch

from aft_lens.checkpoint import commit, load_decoder, read_metrics
from aft_lens.data.sequences import Pixels, SequenceSource, Stream, load_sequences
from aft_lens.training import measure_bits, train
from aft_lens.training.run import remove_run, state_folder
from analyses.autoregression.plan import LAST_IMAGES, MEASURED_IMAGES, Task
from analyses.provenance import environment

THREADS = 1
"""CPU threads of a run whose device is a GPU."""


def execute(task: Task) -> Mapping[str, Any]:
    """Train (or go on with) a run, measure its bits on new and on training symbols, and return its row.

    Text is measured with half the length as context, over the whole test split and as much of the training split.
    """
    recipe = task.recipe
    device = torch.device("cuda" if recipe.trainer.accelerator != "cpu" and torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        torch.set_num_threads(THREADS)
        torch.cuda.reset_peak_memory_stats()
    path, data = task.runs / task.name, _data(recipe.data.name, recipe.data.root, recipe.model.length)
    started, begun = datetime.now(UTC), time.perf_counter()
    resume = any(state_folder(path).glob("epoch=*.ckpt"))
    if not resume:
        remove_run(path)
    train(recipe, path, resume=resume, progress=False, data=data)
    seconds = time.perf_counter() - begun
    model, last = load_decoder(path, device).model, read_metrics(path)[-1]
    context = 1 if data.grid else recipe.model.length // 2
    test, trained = (
        measure_bits(model, split, context=context, limit=limit, device=device)
        for split, limit in _measured(data, context)
    )
    remove_run(path)
    shutil.rmtree(state_folder(path), ignore_errors=True)
    low, high = test.interval
    return {
        **task.identity(), "words": task.setting.words, "tables": task.setting.tables, "seed": recipe.seed,
        "test": test.mean, "test_interval": [low, high], "test_symbols": test.symbols, "train": trained.mean,
        "train_symbols": data.train.symbols.numel(),
        "context": test.context, "parameters": sum(p.numel() for p in model.parameters()),
        "sequences_per_second": last["sequences_per_second"], "peak_memory_mib": last.get("peak_memory_mib"),
        "seconds": seconds, "resumed": resume, "started": started.isoformat(timespec="seconds"),
        "commit": task.commit or commit(), **environment(device),
    }  # fmt: skip


@cache
def _data(name: str, root: str | None, length: int) -> SequenceSource:
    """The task's data, its validation images cut to a few."""
    data = load_sequences(name, root=root, length=length)
    if isinstance(data.val, Pixels):
        data = replace(data, val=replace(data.val, symbols=data.val.symbols[:LAST_IMAGES]))
    return data


def _measured(data: SequenceSource, context: int) -> list[tuple[Pixels | Stream, int | None]]:
    """Test and training split, each with how many of its windows are measured."""
    if data.grid:
        return [(data.test, MEASURED_IMAGES), (data.train, MEASURED_IMAGES)]
    windows = len(data.test.symbols) // (data.length - context + 1)
    return [(data.test, None), (data.train, windows)]
