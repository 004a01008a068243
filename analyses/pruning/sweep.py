"""A whole ladder from one YAML: every checkpoint x criterion x budget x schedule x k, resumable.

python -m analyses.pruning.sweep --config PLAN.yaml --out DIR
"""

import hashlib
import json
import platform
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonargparse
import torch
import yaml
from torch import Tensor

from aft_lens.checkpoint import Checkpoint, commit, load_checkpoint, revision, save_checkpoint, versions
from analyses.pruning import evidence
from analyses.pruning.criteria import score
from analyses.pruning.images import Images, load_images
from analyses.pruning.ladder import PruneLadder, measure_masks, prune_to_indexing
from analyses.pruning.masks import select
from analyses.pruning.measure import latencies

SCHEDULES = ("one-shot", "iterative")


@dataclass(frozen=True)
class Plan:
    """What a sweep does. Raises ValueError on a value that cannot be run."""

    checkpoints: tuple[str, ...]
    """Folders of the parents."""
    criteria: tuple[str, ...] = ("magnitude", "random", "centre")
    """How offsets are ranked."""
    budgets: tuple[str, ...] = ("head",)
    """head, layer or global."""
    schedules: tuple[str, ...] = ("one-shot",)
    """one-shot, or iterative: cut to each larger k of `keeps` in turn, fine-tuning at each."""
    keeps: tuple[float, ...] = (16, 4, 2, 1, 0)
    """Offsets a head."""
    finetune_epochs: int = 0
    """Epochs of training after each cut."""
    data: str | None = None
    """Data set; by default each checkpoint's own."""
    images: int = 0
    """Test images; 0 takes all."""
    calibration: int = 512
    """Training images for measured criteria."""
    batch_sizes: tuple[int, ...] = (64, 1)
    """Batches to time."""
    seconds: float = 0.3
    """Seconds of timing for each model and batch size."""
    seed: int = 0
    """Of calibration images, the random control and fine-tuning."""
    save_models: bool = False
    """Keep every compact model as a checkpoint under models/."""

    def __post_init__(self) -> None:
        """Check what would fail only after hours."""
        unknown = set(self.schedules) - set(SCHEDULES)
        if unknown:
            raise ValueError(f"schedules must be among {SCHEDULES}, got {sorted(unknown)}")
        if "iterative" in self.schedules and not self.finetune_epochs:
            raise ValueError("finetune_epochs must be 1 or more for the iterative schedule, got 0")
        if not self.checkpoints:
            raise ValueError("checkpoints must name at least one folder, got none")

    def rungs(self) -> Iterator[tuple[str, str, str, str, float]]:
        """Every (checkpoint, criterion, budget, schedule, keep), a checkpoint at a time."""
        for checkpoint in self.checkpoints:
            for criterion in self.criteria:
                for budget in self.budgets:
                    for schedule in self.schedules:
                        for keep in self.keeps:
                            yield checkpoint, criterion, budget, schedule, keep


def run_sweep(plan: Plan, out: Path, *, line: str = "") -> list[dict[str, Any]]:
    """Run what is not there yet, write the evidence folder `out`, and return a row for every rung.

    Each finished rung is a file under rungs/ with a fingerprint of the plan and the parent's weights: a rung of
    the same fingerprint is never run again, so a killed sweep goes on where it stopped.
    """
    out = Path(out)
    (out / "rungs").mkdir(parents=True, exist_ok=True)
    (out / "plan.yaml").write_text(yaml.safe_dump(_plain(plan), sort_keys=False))
    rows: list[dict[str, Any]] = []
    scores: dict[str, list[Tensor]] = {}
    loaded, images = None, None
    for checkpoint, criterion, budget, schedule, keep in plan.rungs():
        path = out / "rungs" / f"{_slug(checkpoint)}-{criterion}-{budget}-{schedule}-{keep:g}.json"
        mark = fingerprint(plan, checkpoint, criterion, budget, schedule, keep)
        row = json.loads(path.read_text()) if path.is_file() else {}
        if row.get("fingerprint") != mark:
            if loaded is None or loaded.path != Path(checkpoint):
                loaded, scores = load_checkpoint(checkpoint), {}
                images = load_images(
                    loaded.data, data=plan.data, test=plan.images, calibration=plan.calibration, seed=plan.seed
                )
            if images is None:
                raise RuntimeError(f"no images were loaded for {checkpoint}")
            if schedule == "one-shot" and criterion not in scores:
                scores[criterion] = score(loaded.model, criterion, images.calibration, seed=plan.seed + loaded.seed)
            ladder = _run(plan, loaded, images, scores.get(criterion, []), criterion, budget, schedule, keep)
            row = {"fingerprint": mark, **rung_row(loaded, ladder, criterion, budget, schedule, keep, images.source)}
            if plan.save_models:
                recipe = {**loaded.recipe, "pruned_from": loaded.path.name}
                save_checkpoint(
                    out / "models" / path.stem, ladder.model, data=loaded.data, recipe=recipe, seed=loaded.seed,
                    metrics=[],
                )  # fmt: skip
            fresh = path.with_suffix(".writing")
            fresh.write_text(json.dumps(row) + "\n")
            fresh.rename(path)
            print(evidence.line(row), flush=True)
        rows.append(row)
    evidence.write(rows, out, environment(plan, line))
    return rows


def _run(
    plan: Plan, loaded: Checkpoint, images: Images, scores: Sequence[Tensor], criterion: str, budget: str,
    schedule: str, keep: float,
) -> PruneLadder:  # fmt: skip
    """Prune, fine-tune and measure one rung."""
    options: dict[str, Any] = {
        "criterion": criterion, "budget": budget, "train": images.train, "finetune_epochs": plan.finetune_epochs,
        "seed": plan.seed, "batch_sizes": plan.batch_sizes, "seconds": plan.seconds,
    }  # fmt: skip
    if schedule == "one-shot":
        return measure_masks(loaded.model, select(scores, keep, budget), images.test, **options)
    steps = sorted((each for each in plan.keeps if each > keep), reverse=True)
    return prune_to_indexing(loaded.model, images.test, keep, calibration=images.calibration, steps=steps, **options)


def rung_row(
    loaded: Checkpoint, ladder: PruneLadder, criterion: str, budget: str, schedule: str, keep: float, data: str
) -> dict[str, Any]:
    """One row: accuracy of parent, pruned and fine-tuned model on the same images, and the compact model's cost."""
    by_name = {rung.name: rung for rung in ladder.rows}
    parent, masked, indexed = by_name["parent"], by_name["masked"], by_name["indexed"]
    last = ladder.rows[-1]
    row: dict[str, Any] = {
        "checkpoint": loaded.path.name, "parent": loaded.config.bias_kind, "recipe": loaded.recipe.get("name", ""),
        "parent_seed": loaded.seed, "data": data, "images": ladder.images, "criterion": criterion,
        "budget": budget, "schedule": schedule, "keep": keep, "accuracy_parent": parent.accuracy,
    }  # fmt: skip
    for name, rung in (("pruned", indexed), ("finetuned", by_name.get("fine-tuned"))):
        row[f"accuracy_{name}"] = None if rung is None else rung.accuracy
        row[f"accuracy_{name}_interval"] = None if rung is None else rung.accuracy_interval
        row[f"difference_{name}"] = None if rung is None else rung.difference
        row[f"difference_{name}_interval"] = None if rung is None else rung.difference_interval
    row |= {
        "finetune_epochs": last.finetune_epochs, "max_abs_logit_difference": ladder.max_logit_difference,
        "parameters_parent": parent.parameters, "parameters": last.parameters, "bytes_parent": parent.bytes,
        "bytes": last.bytes, "operations_parent": parent.operations, "operations": last.operations,
        "form": last.form, "kept_offsets": last.kept_offsets, "dropped_heads": last.dropped_heads,
        "latencies": {rung.name: [asdict(each) for each in rung.latencies] for rung in (parent, masked, last)},
        "offsets": ladder.offsets(),
    }  # fmt: skip
    if torch.cuda.is_available():
        models = [loaded.model, ladder.model]
        shape = (1, loaded.config.in_chans, loaded.config.img_size, loaded.config.img_size)
        for model in models:
            model.cuda()
        taken = {batch: latencies(models, torch.randn(shape), batch=batch, seconds=0.3) for batch in (64, 1)}
        for place, name in enumerate(("parent", last.name)):
            row["latencies"][name] += [asdict(taken[batch][place]) for batch in taken]
        for model in models:
            model.cpu()
    return row


def fingerprint(plan: Plan, checkpoint: str, *rung: object) -> str:
    """A short hash of the parent's weights and of everything in the plan that a rung depends on."""
    record = _plain(plan)
    for name in ("checkpoints", "criteria", "budgets", "schedules", "save_models"):
        del record[name]
    if "iterative" not in rung:
        del record["keeps"]
    content = json.dumps([revision(checkpoint), record, [str(part) for part in rung]])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def environment(plan: Plan, line: str) -> dict[str, Any]:
    """Where and by which line a result was made."""
    return {
        "command": line, "plan": _plain(plan), "commit": commit(), "versions": versions(),
        "threads": torch.get_num_threads(), "cpu": platform.processor() or platform.machine(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip


def _plain(plan: Plan) -> dict[str, Any]:
    """The plan as lists, strings and numbers."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(plan).items()}


def _slug(checkpoint: str) -> str:
    """A checkpoint's folder name."""
    return Path(checkpoint).name


def command(plan: Plan, out: Path) -> None:
    """Run a sweep of pruned models into one evidence folder; run again to go on after a kill.

    Args:
        plan: what to run; give a YAML by --plan PLAN.yaml.
        out: the evidence folder.
    """
    line = shlex.join(["python", "-m", "analyses.pruning.sweep", *sys.argv[1:]])
    rows = run_sweep(plan, out, line=line)
    print(f"{len(rows)} rungs in {out}, max |Δlogit| {max(row['max_abs_logit_difference'] for row in rows):.2e}")


if __name__ == "__main__":
    jsonargparse.auto_cli(command)
