"""A whole ladder from one YAML: every checkpoint x criterion x budget x schedule x k, resumable.

python -m analyses.pruning.evidence.sweep --plan PLAN.yaml --out DIR
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import yaml

from aft_lens.checkpoint import revision
from aft_lens.files import locked, write_whole
from analyses.cells import HERE, Cell, Crew, run_cells
from analyses.command import run_module
from analyses.pruning.evidence.curves import Evidence, conditions
from analyses.pruning.evidence.latencies import time_rungs
from analyses.pruning.evidence.plan import Place, Plan, marks
from analyses.pruning.evidence.row import RungRow
from analyses.pruning.evidence.rungs import digest, measured, opened
from analyses.store import Store

Times = Literal["missing", "all", "none"]


def run_sweep(plan: Plan, out: Path, *, times: Times = "missing", crew: Crew = HERE) -> list[RungRow]:
    """Run what is not there yet, write the evidence folder `out`, and return a row for every rung.

    Each finished rung is kept under rungs/ with a fingerprint of the plan and the parent's weights: a rung of the same
    fingerprint is never run again, so a killed sweep goes on where it stopped. One-shot rungs of a parent that keep the
    same offsets are found before any is sent out, and measured once. Latencies are taken at the end, all in one go and
    in this process: those that are "missing", "all" again, or "none" for now. Raises ValueError, with every reason, if
    rungs failed, and Stopped where the crew's time is over.
    """
    with locked(out, "wait until it ends, or choose another --out"):
        return _run(plan, Path(out), times, crew)


def _run(plan: Plan, out: Path, times: Times, crew: Crew) -> list[RungRow]:
    """`run_sweep`, once the folder is this process's alone."""
    store, marked = Store(out / "rungs"), marks(plan)
    write_whole(out / "plan.yaml", yaml.safe_dump(plan.record(), sort_keys=False))
    kept = {place: store.get(place.name, marked[place]) for place in plan.places()}
    found = {place: RungRow.read(row) for place, row in kept.items() if row is not None}
    cells, twins = _work(plan, [place for place in kept if place not in found], found, marked, out / "models")
    places = {place.name: place for place in kept}

    def done(cell: Cell, row: Any) -> None:
        found[places[cell.name]] = RungRow.read(row)
        print(found[places[cell.name]].line, flush=True)

    run_cells(cells, store, crew, done=done).check_whole("rungs", store)
    for place, twin in twins.items():
        found[place] = found[twin].at(place)
        store.put(place.name, marked[place], found[place])
    rows = [found[place] for place in kept]
    if times == "all":
        rows = [replace(row, latencies={}) for row in rows]
    if times != "none":
        for number, place, row in time_rungs(plan, rows):
            store.put(place.name, marked[place], row)
            rows[number] = row
    Evidence(tuple(rows), conditions() | {"plan": plan.record()}).save(out)
    return rows


def _work(
    plan: Plan, missing: Sequence[Place], found: Mapping[Place, RungRow], marked: Mapping[Place, str], models: Path
) -> tuple[list[Cell], dict[Place, Place]]:
    """What is to be measured, and by place the other one that keeps the same offsets and whose row it takes."""
    first = {(place.checkpoint, row.masks): place for place, row in found.items() if row.masks}
    revisions = {checkpoint: revision(checkpoint) for checkpoint in plan.checkpoints}
    cells, twins = [], {}
    for place in missing:
        masks = None
        if place.schedule == "one-shot":
            masks = opened(plan, place.checkpoint, revisions[place.checkpoint]).masks(place)
            twin = first.setdefault((place.checkpoint, digest(masks)), place)
            if twin != place and not plan.save_models:
                twins[place] = twin
                continue
        work = partial(measured, place, masks, plan, revisions[place.checkpoint], models / place.name)
        epochs = plan.finetune * (1 + sum(each > place.keep for each in plan.keeps) * (masks is None))
        cells.append(Cell(place.name, marked[place], work, place.checkpoint, 1.0 + epochs))
    return cells, twins


def command(
    plan: Plan,
    out: Path,
    times: Times = "missing",
    workers: int = 0,
    ray: str = "",
    gpus: float = 0.0,
    budget: float = 0.0,
) -> None:
    """Run a sweep of pruned models into one evidence folder; run again to go on after a kill.

    Args:
        plan: what to run; give a YAML by --plan PLAN.yaml.
        out: the evidence folder.
        times: latencies to take at the end: missing ones, all again, or none (for a later run on a quiet machine).
        workers: processes that share the rungs; 0 does them in this one, or with --ray in one for each processor.
        ray: address of a Ray cluster whose machines share them: auto, local or HOST:PORT (needs the ray extra).
        gpus: GPUs of each of its workers, e.g. 0.25 for four on one.
        budget: seconds, to go on with the same command later; 0 is no limit.
    """
    rows = run_sweep(plan, out, times=times, crew=Crew(workers, ray, gpus, budget))
    print(f"{len(rows)} rungs in {out}, max |Δlogit| {max(row.max_abs_logit_difference for row in rows):.2e}")


if __name__ == "__main__":
    run_module("analyses.pruning.evidence.sweep", command, as_positional=False)
