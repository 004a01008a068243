"""Rows that another machine trained, taken into a study's folder: a lent GPU's runs are not made again."""

from collections.abc import Sequence
from pathlib import Path

from analyses.autoregression.plan import Task, identity
from analyses.autoregression.speed import keep_speeds, read_speeds
from analyses.store import Store, fingerprint
from analyses.taken import contents, rows


def take(source: Path, todo: Sequence[Task]) -> tuple[int, int]:
    """Put each task's row that `source` has and its own folder has not into that folder; return how many, of how many.

    `source` is a folder of rows, a tar of one, or autoregression.json, whose runs are rows too and whose speeds are
    taken along. A row counts for a task if it agrees with it on all that a run depends on. Raises InputError where
    there is nothing of that kind.
    """
    wanted = {task.mark: task for task in todo}
    whole = contents(source)
    found = rows(whole, source, "task", "setting", "recipe")
    taken = 0
    for row in found:
        mark = fingerprint(identity(row["task"], row["setting"], row["recipe"]))
        task = wanted.get(mark)
        if task is not None and Store(task.runs).get(task.name, mark) is None:
            Store(task.runs).put(task.name, mark, row)
            taken += 1
    speeds = [content["speeds"] for content in whole if content.get("speeds")]
    if speeds and todo and not read_speeds(todo[0].runs):
        keep_speeds(todo[0].runs, speeds[0])
    return taken, len(found)
