"""Judging stored runs by criteria that were set before them: `aft-lens study judge`."""

import subprocess
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from analyses.cells import Crew
from analyses.provenance import command_line
from analyses.study import claims
from analyses.study.configurations import FAMILIES
from analyses.study.plan import Study, tasks
from analyses.study.record import Run
from analyses.study.result import CLAIMS, FILES, Judged
from analyses.study.rows import take_over
from analyses.study.train import read_runs


def run(study: Study, *, crew: Crew, out: Path) -> None:
    """Judge every finished run of `study.plan` of all data sets by the plan's claims, print and write the JSON.

    Raises ValueError, with the next step, without any run, with criteria that are not committed, or where a run began
    before they were.
    """
    if study.plan not in FILES:
        raise ValueError(f"study.plan must be one of {', '.join(FILES)} to be judged, got {study.plan!r}")
    runs: list[Run] = []
    missing: list[str] = []
    for family in FAMILIES:
        own = replace(study, family=family, only=())
        take_over(own)
        found = read_runs(own)
        if not found:
            continue
        done = {(each.configuration, each.seed) for each in found}
        planned = tasks(own)
        missing += [task.name for task in planned if (task.configuration.name, task.recipe.seed) not in done]
        runs += found
    if not runs:
        raise ValueError(
            f"{study.runs} has no runs of the plan {study.plan}; train them: `aft-lens study train --study.plan "
            f"{study.plan}`"
        )
    commit, when = registration()
    if CLAIMS[study.plan]:
        check_order(runs, commit, when)
    result = Judged(
        study.plan, command_line(), commit, sorted({each.hardware for each in runs}), runs[0].versions, missing, runs
    )
    result.write_record(out / FILES[study.plan])
    print(result.markdown())


def registration(path: Path | None = None) -> tuple[str, datetime]:
    """The commit that last changed a file of criteria, the study's if left out, and when it was made.

    Raises ValueError where they are not committed, or not in a Git checkout.
    """
    path = path or Path(claims.__file__)
    try:
        changed = _git(path, "status", "--porcelain", "--", str(path))
        line = _git(path, "log", "-1", "--format=%H %cI", "--", str(path))
    except (OSError, subprocess.CalledProcessError) as error:
        raise ValueError(f"{path} must lie in a Git checkout, which says when criteria were set: {error}") from error
    if changed or not line:
        raise ValueError(f"{path} must be committed before runs are judged by it")
    commit, when = line.split()
    return commit, datetime.fromisoformat(when)


def check_order(runs: Sequence[Run], commit: str, when: datetime) -> None:
    """ValueError if a run began before the criteria were committed."""
    early = [each for each in runs if datetime.fromisoformat(each.started) < when.astimezone(UTC)]
    if early:
        raise ValueError(
            f"{len(early)} runs began before the criteria of commit {commit[:12]} ({when:%Y-%m-%d %H:%M %z}) were set, "
            f"the first of {early[0].configuration}, seed {early[0].seed}; train them anew"
        )


def _git(path: Path, *words: str) -> str:
    """What Git answers in the folder of a file."""
    return subprocess.run(["git", *words], cwd=path.parent, check=True, capture_output=True, text=True).stdout.strip()
