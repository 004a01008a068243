"""What a sweep of pruned models does, as one record that a YAML fills."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aft_lens.checkpoint import revision
from analyses.store import fingerprint

SCHEDULES = ("one-shot", "iterative")


@dataclass(frozen=True)
class Place:
    """Where a rung stands in a sweep."""

    checkpoint: str
    criterion: str
    budget: str
    schedule: str
    keep: float

    @property
    def name(self) -> str:
        """Stem of the rung's files, which tells folders of one name apart."""
        folder = f"{Path(self.checkpoint).name}-{fingerprint(self.checkpoint)[:6]}"
        return f"{folder}-{self.criterion}-{self.budget}-{self.schedule}-{self.keep:g}"


@dataclass(frozen=True)
class Plan:
    """Every checkpoint x criterion x budget x schedule x k. Raises ValueError on a value that cannot be run."""

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
    finetune: int = 0
    """Epochs of training after each cut."""
    finetune_batch: int = 64
    """Images a step of fine-tuning."""
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
    device: str = "cpu"
    """Where models are scored, fine-tuned and tested: cpu or cuda. Both are timed where both are there."""
    seed: int = 0
    """Of calibration images, the random control and fine-tuning."""
    save_models: bool = False
    """Keep every compact model as a checkpoint under models/."""

    def __post_init__(self) -> None:
        """Check what would fail only after hours."""
        unknown = set(self.schedules) - set(SCHEDULES)
        if unknown:
            raise ValueError(f"schedules must be among {SCHEDULES}, got {sorted(unknown)}")
        if "iterative" in self.schedules and not self.finetune:
            raise ValueError("finetune must be 1 or more for the iterative schedule, got 0")
        if not self.checkpoints:
            raise ValueError("checkpoints must name at least one folder, got none")

    def places(self) -> Iterator[Place]:
        """Every rung, a checkpoint at a time."""
        for checkpoint in self.checkpoints:
            for criterion in self.criteria:
                for budget in self.budgets:
                    for schedule in self.schedules:
                        for keep in self.keeps:
                            yield Place(checkpoint, criterion, budget, schedule, float(keep))

    def record(self) -> dict[str, Any]:
        """The plan as lists, strings and numbers."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def marks(plan: Plan) -> dict[Place, str]:
    """By rung, a fingerprint of the parent's weights and of everything that the rung's accuracy depends on."""
    weights = {checkpoint: revision(checkpoint) for checkpoint in plan.checkpoints}
    record = plan.record() | {"keeps": [float(keep) for keep in plan.keeps]}
    one_shot = {name: record[name] for name in ("finetune", "finetune_batch", "data", "images", "calibration", "seed")}
    asked = {"one-shot": one_shot, "iterative": one_shot | {"keeps": record["keeps"]}}
    return {p: fingerprint(weights[p.checkpoint], asked[p.schedule], p) for p in plan.places()}
