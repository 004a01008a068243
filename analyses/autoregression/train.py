"""Training what is not trained yet, several runs at a time, within a budget of seconds."""

import time
from functools import partial
from pathlib import Path
from typing import Any

from analyses.autoregression.plan import Study, Task, tasks
from analyses.autoregression.rows import take
from analyses.autoregression.worker import execute
from analyses.cells import Cell, Crew, run_cells
from analyses.store import Store


def run(study: Study, *, crew: Crew, out: Path) -> None:
    """Train the study's unfinished runs until all are there or the budget is used.

    Finished runs are never repeated, here or in `study.rows`; one that is cut off goes on after its last epoch. Raises
    ValueError if one failed.
    """
    begun = time.monotonic()
    if study.rows is not None:
        taken, there = take(study.rows, tasks(study))
        print(f"{taken} of {there} runs of {study.rows} are taken over", flush=True)

    def told(cell: Cell, row: Any) -> None:
        print(
            f"{time.monotonic() - begun:6.0f} s  {cell.name}: test {row['test']:.4f}, train {row['train']:.4f} bits, "
            f"{row['seconds']:.0f} s", flush=True,
        )  # fmt: skip

    cells = [_cell(task) for task in tasks(study)]
    found = run_cells(cells, Store(study.runs), crew, done=told)
    if found.left:
        print(f"{len(found.left)} runs left ({', '.join(found.left)}); the same command goes on with them")
    found.check()


def read_rows(study: Study) -> tuple[list[Any], list[str]]:
    """Rows of the study's finished runs in its order, and the names of those that are missing."""
    rows: dict[str, Any] = {}
    for task in tasks(study):
        rows[task.name] = Store(study.runs).get(task.name, task.mark)
    return [row for row in rows.values() if row], [name for name, row in rows.items() if not row]


def _cell(task: Task) -> Cell:
    """The run as a piece of work."""
    return Cell(task.name, task.mark, partial(execute, task), task.setting.task)
