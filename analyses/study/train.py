"""Training what is not trained yet, several runs at a time, within a budget of seconds: `aft-lens study train`."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from aft_lens.data import load_data
from analyses.cells import Cell, Crew, run_cells
from analyses.store import Store
from analyses.study.plan import Study, Task, tasks
from analyses.study.record import Run
from analyses.study.rows import take_over
from analyses.study.worker import execute

LIFE = 6
"""Runs with CUDA graphs that a process makes: their memory on the device goes with it alone."""


def run(study: Study, *, crew: Crew, out: Path) -> None:
    """Train the study's unfinished runs until all are there or the budget is used.

    Finished runs are never repeated, here or in `study.rows`. A run cut off goes on after its last finished epoch next
    time. Raises ValueError if a run failed.
    """
    begun, todo = time.monotonic(), tasks(study)
    take_over(study)
    load_data(todo[0].recipe.data.name, root=study.root)  # decoded or downloaded once, before processes start
    finished = len(_finished(todo))
    print(f"{finished} of {len(todo)} runs finished before", flush=True)

    def told(cell: Cell, row: Mapping[str, Any]) -> None:
        nonlocal finished
        finished += 1
        print(
            f"{time.monotonic() - begun:6.0f} s  {cell.name}: {row['accuracy']:.2f} % (val {row['val_accuracy']:.2f}), "
            f"{row['seconds']:.0f} s, {row['images_per_second']:,.0f} images/s ({finished}/{len(todo)})", flush=True,
        )  # fmt: skip

    found = run_cells(
        [_cell(task) for task in todo], Store(study.runs),
        replace(crew, life=LIFE if study.cuda_graphs else 0), done=told,
    )  # fmt: skip
    if found.left:
        print(f"{len(found.left)} runs left ({', '.join(found.left)}); the same command goes on with them")
    found.check()


def read_runs(study: Study) -> list[Run]:
    """The study's finished runs in its order; none where its folder has no run of the plan and family."""
    if not any(study.runs.glob(f"{study.family}-{study.plan}-*.json")):
        return []
    return _finished(tasks(study))


def _finished(todo: Sequence[Task]) -> list[Run]:
    """The runs of these tasks that have a row."""
    return [run for _, run in with_runs(todo)]


def with_runs(todo: Sequence[Task]) -> list[tuple[Task, Run]]:
    """Those of these tasks that have a row, each with its run."""
    rows = [(task, task.store.get(task.name, task.mark)) for task in todo]
    return [(task, Run.read(row)) for task, row in rows if row is not None]


def _cell(task: Task) -> Cell:
    """The run as a piece of work."""
    kind = f"{task.family}-{task.configuration.name}"
    size = float(task.recipe.trainer.epochs)
    return Cell(task.name, task.mark, partial(execute, task), kind, size, task.after, keeps=True)
