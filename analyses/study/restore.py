"""Runs of a published record back in the study's folder, to judge them anew or go on: `aft-lens study restore`."""

from dataclasses import replace
from pathlib import Path

from analyses.cells import Crew
from analyses.result import read_record
from analyses.study.plan import Study, tasks
from analyses.study.result import FILES, Judged


def run(study: Study, *, crew: Crew, out: Path) -> None:
    """Put the runs of the record of `study.plan` where training and judging look for them; what is there stays.

    Weights are not published, so a run that a missing one starts from is left to be trained again. Raises
    FileNotFoundError without a record, ValueError on a plan without one and on runs that today's plan has not.
    """
    if study.plan not in FILES:
        raise ValueError(f"study.plan must be one of {', '.join(FILES)} to be restored, got {study.plan!r}")
    path = out / FILES[study.plan]
    runs = Judged.read(read_record(path, f"`aft-lens study judge --study.plan {study.plan}`")).runs
    kept = {(each.family, each.configuration, each.seed): each for each in runs}
    planned = [
        task for family in dict.fromkeys(each.family for each in runs)
        for task in tasks(replace(study, family=family, only=()))
    ]  # fmt: skip
    found = {task.name: kept.pop(key) for task in planned if (key := task.key) in kept}
    if kept:
        raise ValueError(f"{path} has runs that the plan {study.plan} has not any more, e.g. {next(iter(kept))}")
    starts = {task.after for task in planned if task.name not in found}
    other = []
    for task in planned:
        if task.name not in found or task.name in starts or task.store.path(task.name).exists():
            continue
        own = found[task.name]
        if own.identity() != task.identity():
            other.append(task.name)
        else:
            task.store.put(task.name, task.mark, own.record())
    if other:
        raise ValueError(f"{path} has runs of other recipes than today's: {', '.join(other)}; train them anew")
    there = sum(task.store.get(task.name, task.mark) is not None for task in planned)
    print(f"{study.runs} has {there} of {len(planned)} runs; `aft-lens study train` goes on with the others")
