"""A whole ladder from one YAML: every checkpoint x criterion x budget x schedule x k, resumable.

python -m analyses.pruning.sweep --plan PLAN.yaml --out DIR
"""

import hashlib
import json
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import jsonargparse
import torch
import yaml
from torch import Tensor

from aft_lens.checkpoint import Checkpoint, commit, load_checkpoint, save_checkpoint
from aft_lens.models import VisionModel
from analyses import provenance
from analyses.pruning import evidence
from analyses.pruning.criteria import score
from analyses.pruning.images import Images, load_images
from analyses.pruning.ladder import PruneLadder, measure_masks, prune_to_indexing
from analyses.pruning.masks import select
from analyses.pruning.plan import Place, Plan, fingerprint
from analyses.pruning.timing import time_rungs

Times = Literal["missing", "all", "none"]


def run_sweep(plan: Plan, out: Path, *, line: str = "", times: Times = "missing") -> list[dict[str, Any]]:
    """Run what is not there yet, write the evidence folder `out`, and return a row for every rung.

    Each finished rung is a file under rungs/ with a fingerprint of the plan and the parent's weights: a rung of
    the same fingerprint is never run again, so a killed sweep goes on where it stopped. One-shot rungs of a parent
    that keep the same offsets are measured once. Latencies are taken at the end, all in one go: those that are
    "missing", "all" again, or "none" for now.
    """
    out = Path(out)
    (out / "rungs").mkdir(parents=True, exist_ok=True)
    (out / "plan.yaml").write_text(yaml.safe_dump(plan.record(), sort_keys=False))
    rows: list[dict[str, Any]] = []
    parent: _Parent | None = None
    for place in plan.places():
        path = out / "rungs" / f"{place.name}.json"
        mark = fingerprint(plan, place)
        row = json.loads(path.read_text()) if path.is_file() else {}
        if row.get("fingerprint") != mark:
            if parent is None or parent.loaded.path != Path(place.checkpoint):
                parent = _Parent(plan, place.checkpoint)
            row = {**parent.rung(place, rows, out / "models" / place.name), "fingerprint": mark}
            write_row(row, path)
            print(evidence.line(row), flush=True)
        rows.append(row)
    if times == "all":
        rows = [{**row, "latencies": {}} for row in rows]
    if times != "none":
        for place, row in time_rungs(plan, rows):
            write_row(row, out / "rungs" / f"{place.name}.json")
    evidence.write(rows, out, environment(plan, line))
    return rows


def write_row(row: dict[str, Any], path: Path) -> None:
    """Write a rung's file under another name first, so that a killed run leaves none half written."""
    fresh = path.with_suffix(".writing")
    fresh.write_text(json.dumps(row) + "\n")
    fresh.rename(path)


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

    def rung(self, place: Place, rows: Sequence[dict[str, Any]], model: Path) -> dict[str, Any]:
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
            twin = next((row for row in rows if row["masks"] == digest and row["checkpoint"] == place.checkpoint), None)
            if twin is not None and not plan.save_models:
                return {**twin, "criterion": place.criterion, "budget": place.budget, "keep": place.keep}
            ladder = measure_masks(self.loaded.model, masks, self.images.test, **options)
        if plan.save_models:
            self.save(ladder.model, place, model)
        return {**rung_row(self.loaded, ladder, place), "data": self.images.source, "masks": digest}

    def save(self, model: VisionModel, place: Place, path: Path) -> None:
        """Write a compact model as a checkpoint that says what it was cut from."""
        recipe = {**self.loaded.recipe, "pruned_from": Path(place.checkpoint).name}
        save_checkpoint(path, model, data=self.loaded.data, recipe=recipe, seed=self.loaded.seed, metrics=[])


def rung_row(loaded: Checkpoint, ladder: PruneLadder, place: Place) -> dict[str, Any]:
    """One row: accuracy of parent, pruned and fine-tuned model on the same images, and the compact model's cost."""
    by_name = {rung.name: rung for rung in ladder.rows}
    parent, last = by_name["parent"], ladder.rows[-1]
    row: dict[str, Any] = {
        "checkpoint": place.checkpoint, "parent": parent_kind(loaded), "parent_seed": loaded.seed,
        "images": ladder.images, "criterion": place.criterion, "budget": place.budget, "schedule": place.schedule,
        "keep": place.keep, "accuracy_parent": parent.accuracy, "accuracy_parent_interval": parent.accuracy_interval,
    }  # fmt: skip
    for name, rung in (("pruned", by_name["indexed"]), ("finetuned", by_name.get("fine-tuned"))):
        row[f"accuracy_{name}"] = None if rung is None else rung.accuracy
        row[f"accuracy_{name}_interval"] = None if rung is None else rung.accuracy_interval
        row[f"difference_{name}"] = None if rung is None else rung.difference
        row[f"difference_{name}_interval"] = None if rung is None else rung.difference_interval
    return row | {
        "finetune_epochs": last.finetune_epochs, "max_abs_logit_difference": ladder.max_logit_difference,
        "parameters_parent": parent.parameters, "parameters": last.parameters, "bytes_parent": parent.bytes,
        "bytes": last.bytes, "operations_parent": parent.operations, "operations": last.operations,
        "form": last.form, "kept_offsets": last.kept_offsets, "dropped_heads": last.dropped_heads,
        "latencies": {}, "offsets": ladder.offsets(),
    }  # fmt: skip


def parent_kind(loaded: Checkpoint) -> str:
    """How a parent was trained: dense, entropy (Eq. 9) or single position (Eq. 10); or that it is indexed already."""
    if loaded.config.keep:
        return "indexed"
    if loaded.config.bias_kind == "single":
        return "single position"
    return "entropy" if loaded.recipe.get("sparsity", {}).get("entropy_weight") else "dense"


def environment(plan: Plan, line: str) -> dict[str, Any]:
    """Where and by which line a result was made."""
    return {
        "command": line, **provenance.environment(), "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None, "commit": commit(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"), "plan": plan.record(),
    }  # fmt: skip


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
    line = shlex.join(["python", "-m", "analyses.pruning.sweep", *sys.argv[1:]])
    rows = run_sweep(plan, out, line=line, times=times)
    print(f"{len(rows)} rungs in {out}, max |Δlogit| {max(row['max_abs_logit_difference'] for row in rows):.2e}")


if __name__ == "__main__":
    jsonargparse.auto_cli(command, as_positional=False)
