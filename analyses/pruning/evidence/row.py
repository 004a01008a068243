"""One rung of a sweep as a record: what was measured of it, to and from JSON."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from aft_lens.checkpoint import Checkpoint
from aft_lens.statistics import Interval
from analyses.pruning.evidence.plan import Place
from analyses.pruning.measuring.cost import Latency
from analyses.pruning.measuring.ladder import PruneLadder
from analyses.pruning.measuring.rung import Rung

Offsets = list[list[list[list[int]]]]
"""Kept offsets (Δy, Δx) by layer and head."""


@dataclass(frozen=True)
class Timing:
    """How latencies were taken."""

    batch_sizes: tuple[int, ...]
    seconds: float
    threads: int


@dataclass(frozen=True)
class RungRow:
    """A pruned model beside its parent on the same images; fine-tuned figures are None without fine-tuning."""

    checkpoint: str
    """Folder of the parent."""
    parent: str
    """How it was trained, see `parent_kind`."""
    parent_seed: int
    images: int
    """Test images."""
    criterion: str
    budget: str
    schedule: str
    keep: float
    """Offsets a head."""
    accuracy_parent: float
    """Shares from 0 to 1; intervals are 95 %, those of differences paired by image."""
    accuracy_parent_interval: Interval
    accuracy_pruned: float
    accuracy_pruned_interval: Interval
    difference_pruned: float
    difference_pruned_interval: Interval
    accuracy_finetuned: float | None
    accuracy_finetuned_interval: Interval | None
    difference_finetuned: float | None
    difference_finetuned_interval: Interval | None
    finetune_epochs: int
    max_abs_logit_difference: float
    """Between masked and compact model, on any rung of the ladder."""
    parameters_parent: int
    parameters: int
    bytes_parent: int
    bytes: int
    operations_parent: int
    operations: int
    """Floating-point operations an image, see `Rung`."""
    form: str
    kept_offsets: int
    dropped_heads: int
    data: str
    """Data set that was measured on."""
    masks: str
    """Hash of which offsets stay; empty where they were chosen step by step."""
    offsets: Offsets
    latencies: dict[str, tuple[Latency, ...]]
    """By model: parent, masked, indexed; empty until they are taken."""
    timing: Timing | None = None
    sweep: str = ""
    """The sweep of a publication that it belongs to."""

    @property
    def line(self) -> str:
        """The rung in one printed line."""
        tuned = "" if self.accuracy_finetuned is None else f"fine-tuned {100 * self.accuracy_finetuned:.2f} "
        return (
            f"{Path(self.checkpoint).name:20} {self.criterion:10} {self.budget:6} {self.schedule:9} "
            f"k = {self.keep:<4g} parent {100 * self.accuracy_parent:.2f} pruned {100 * self.accuracy_pruned:.2f} "
            f"{tuned}max |Δlogit| {self.max_abs_logit_difference:.1e}"
        )

    def at(self, place: Place) -> "RungRow":
        """The same measurements for another criterion or k that keeps the same offsets."""
        return replace(self, criterion=place.criterion, budget=place.budget, keep=place.keep)

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> "RungRow":
        """A row from JSON; fields that rows of other versions have are left out."""
        known = {field.name: record[field.name] for field in fields(cls) if field.name in record}
        for name in known:
            if name.endswith("_interval") and known[name] is not None:
                known[name] = tuple(known[name])
        taken = {model: tuple(Latency(**each) for each in times) for model, times in known["latencies"].items()}
        timing = known.get("timing")
        if timing is not None:
            timing = Timing(**{**timing, "batch_sizes": tuple(timing["batch_sizes"])})
        return cls(**{"masks": "", "offsets": [], **known, "latencies": taken, "timing": timing})

    @classmethod
    def of(cls, loaded: Checkpoint, ladder: PruneLadder, place: Place, *, data: str, masks: str) -> "RungRow":
        """A measured ladder: accuracy of parent, pruned and fine-tuned model, and the compact model's cost."""
        by_name = {rung.name: rung for rung in ladder.rows}
        parent, pruned, last = by_name["parent"], by_name["indexed"], ladder.rows[-1]
        tuned: Rung | None = by_name.get("fine-tuned")
        return cls(
            checkpoint=place.checkpoint, parent=parent_kind(loaded), parent_seed=loaded.seed, images=ladder.images,
            criterion=place.criterion, budget=place.budget, schedule=place.schedule, keep=place.keep,
            accuracy_parent=parent.accuracy, accuracy_parent_interval=parent.accuracy_interval,
            accuracy_pruned=pruned.accuracy, accuracy_pruned_interval=pruned.accuracy_interval,
            difference_pruned=pruned.difference, difference_pruned_interval=pruned.difference_interval,
            accuracy_finetuned=None if tuned is None else tuned.accuracy,
            accuracy_finetuned_interval=None if tuned is None else tuned.accuracy_interval,
            difference_finetuned=None if tuned is None else tuned.difference,
            difference_finetuned_interval=None if tuned is None else tuned.difference_interval,
            finetune_epochs=last.finetune_epochs, max_abs_logit_difference=ladder.max_logit_difference,
            parameters_parent=parent.parameters, parameters=last.parameters, bytes_parent=parent.bytes,
            bytes=last.bytes, operations_parent=parent.operations, operations=last.operations, form=last.form,
            kept_offsets=last.kept_offsets, dropped_heads=last.dropped_heads, data=data, masks=masks,
            offsets=ladder.offsets(), latencies={},
        )  # fmt: skip


def parent_kind(loaded: Checkpoint) -> str:
    """How a parent was trained: dense, entropy (Eq. 9) or single position (Eq. 10); or that it is indexed already."""
    if loaded.config.keep:
        return "indexed"
    if loaded.config.bias_kind == "single":
        return "single position"
    return "entropy" if loaded.recipe.get("sparsity", {}).get("entropy_weight") else "dense"
