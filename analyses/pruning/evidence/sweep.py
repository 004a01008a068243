"""A whole ladder from one YAML: every checkpoint x criterion x budget x schedule x k, resumable.

python -m analyses.pruning.evidence.sweep --plan PLAN.yaml --out DIR
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import yaml
from torch import Tensor

from aft_lens.checkpoint import load_checkpoint, save_checkpoint
from aft_lens.files import locked, write_whole
from aft_lens.models import VisionModel
from analyses.command import run_module
from analyses.pruning.criteria import score
from analyses.pruning.cutting.masks import select
from analyses.pruning.evidence.curves import Evidence, conditions
from analyses.pruning.evidence.latencies import time_rungs
from analyses.pruning.evidence.plan import Place, Plan, marks
from analyses.pruning.evidence.row import RungRow
from analyses.pruning.images import Images, load_images
from analyses.pruning.measuring.ladder import measure_masks, prune_to_indexing
from analyses.store import Store

Times = Literal["missing", "all", "none"]


def run_sweep(plan: Plan, out: Path, *, times: Times = "missing") -> list[RungRow]:
    """Run what is not there yet, write the evidence folder `out`, and return a row for every rung.

    Each finished rung is kept under rungs/ with a fingerprint of the plan and the parent's weights: a rung of the same
    fingerprint is never run again, so a killed sweep goes on where it stopped. One-shot rungs of a parent that keep the
    same offsets are measured once. Latencies are taken at the end, all in one go: those that are "missing", "all"
    again, or "none" for now.
    """
    with locked(out, "wait until it ends, or choose another --out"):
        return _run(plan, Path(out), times)


def _run(plan: Plan, out: Path, times: Times) -> list[RungRow]:
    """`run_sweep`, once the folder is this process's alone."""
    store, marked = Store(out / "rungs"), marks(plan)
    write_whole(out / "plan.yaml", yaml.safe_dump(plan.record(), sort_keys=False))
    rows: list[RungRow] = []
    parent: _Parent | None = None
    for place in plan.places():
        kept = store.get(place.name, marked[place])
        if kept is None:
            if parent is None or parent.loaded.path != Path(place.checkpoint):
                parent = _Parent(plan, place.checkpoint)
            row = parent.rung(place, rows, out / "models" / place.name)
            store.put(place.name, marked[place], row)
            print(row.line, flush=True)
        else:
            row = RungRow.read(kept)
        rows.append(row)
    if times == "all":
        rows = [replace(row, latencies={}) for row in rows]
    if times != "none":
        for number, place, row in time_rungs(plan, rows):
            store.put(place.name, marked[place], row)
            rows[number] = row
    Evidence(tuple(rows), conditions() | {"plan": plan.record()}).save(out)
    return rows


class _Parent:
    """A loaded checkpoint with its images and the scores computed so far."""

    def __init__(self, plan: Plan, checkpoint: str) -> None:
        self.plan = plan
        self.loaded = load_checkpoint(checkpoint, plan.device)
        self.images: Images = load_images(
            self.loaded.data, data=plan.data, test=plan.images, calibration=plan.calibration, seed=plan.seed,
            device=plan.device, batch_size=plan.finetune_batch,
        )  # fmt: skip
        self.scores: dict[str, list[Tensor]] = {}

    def rung(self, place: Place, rows: Sequence[RungRow], model: Path) -> RungRow:
        """One row: measured, or that of an earlier one-shot rung which keeps the same offsets."""
        plan = self.plan
        options: dict[str, Any] = {
            "criterion": place.criterion, "budget": place.budget, "train": self.images.train,
            "finetune": plan.finetune, "seed": plan.seed, "batch_sizes": (),
        }  # fmt: skip
        if place.schedule == "iterative":
            steps = sorted((each for each in plan.keeps if each > place.keep), reverse=True)
            ladder = prune_to_indexing(
                self.loaded.model, self.images.test, place.keep, calibration=self.images.calibration, steps=steps,
                **options,
            )  # fmt: skip
            digest = ""
        else:
            if place.criterion not in self.scores:
                seed = plan.seed + self.loaded.seed
                self.scores[place.criterion] = score(
                    self.loaded.model, place.criterion, self.images.calibration, seed=seed
                )
            masks = select(self.scores[place.criterion], place.keep, place.budget)
            digest = _digest(masks)
            twin = next((row for row in rows if row.masks == digest and row.checkpoint == place.checkpoint), None)
            if twin is not None and not plan.save_models:
                return twin.at(place)
            ladder = measure_masks(self.loaded.model, masks, self.images.test, **options)
        if plan.save_models:
            self.save(ladder.model, place, model)
        return RungRow.of(self.loaded, ladder, place, data=self.images.source, masks=digest)

    def save(self, model: VisionModel, place: Place, path: Path) -> None:
        """Write a compact model as a checkpoint that says what it was cut from."""
        recipe = {**self.loaded.recipe, "pruned_from": Path(place.checkpoint).name}
        save_checkpoint(path, model, data=self.loaded.data, recipe=recipe, seed=self.loaded.seed, metrics=[])


def _digest(masks: Sequence[Tensor]) -> str:
    """A short hash of which offsets stay."""
    kept = b"".join(mask.cpu().numpy().tobytes() for mask in masks)
    return hashlib.sha256(kept).hexdigest()[:16]


def command(plan: Plan, out: Path, times: Times = "missing") -> None:
    """Run a sweep of pruned models into one evidence folder; run again to go on after a kill.

    Args:
        plan: what to run; give a YAML by --plan PLAN.yaml.
        out: the evidence folder.
        times: latencies to take at the end: missing ones, all again, or none (for a later run on a quiet machine).
    """
    rows = run_sweep(plan, out, times=times)
    print(f"{len(rows)} rungs in {out}, max |Δlogit| {max(row.max_abs_logit_difference for row in rows):.2e}")


if __name__ == "__main__":
    run_module("analyses.pruning.evidence.sweep", command, as_positional=False)
