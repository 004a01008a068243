"""Rows that another machine trained, taken into a study's folder: its runs are not made again."""

from dataclasses import replace

from analyses.store import fingerprint
from analyses.study.plan import Study, tasks
from analyses.study.record import Run
from analyses.taken import contents, rows


def take_over(study: Study) -> None:
    """Put what `study.rows` has of the study's runs, and its own folder has not, into that folder; say how much it is.

    A row counts for a run if it agrees with it on all that a run depends on. Weights are not in it: a run that one
    still to be trained starts from is left out. Raises InputError where `study.rows` has nothing of that kind.
    """
    if study.rows is None:
        return
    found = rows(contents(study.rows), study.rows, "configuration", "family", "recipe")
    own = [run for run in map(Run.read, found) if (run.plan, run.family) == (study.plan, study.family)]
    if not own:
        return
    runs = {fingerprint(run.identity()): run for run in own}
    whole = tasks(replace(study, only=()))  # what starts from a run counts, whether it is asked for now or later
    todo = [task for task in whole if task.store.get(task.name, task.mark) is None]
    starts = {task.after for task in todo if task.mark not in runs}
    taken = [task for task in todo if task.mark in runs and task.name not in starts]
    for task in taken:
        task.store.put(task.name, task.mark, runs[task.mark].record())
    print(f"{len(taken)} of {len(own)} runs on {study.family} in {study.rows} are taken over", flush=True)
