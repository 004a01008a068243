"""images.json: what `aft-lens bench images` measured, in typed rows."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

NAME = "images.json"


@dataclass(frozen=True)
class Stage:
    """One stage of the way from a file to a training step, alone, at full speed."""

    name: str
    images_per_second: float
    where: str
    """On what it runs, in words."""


@dataclass(frozen=True)
class Run:
    """Training or evaluation from memory or from files."""

    name: str
    images_per_second: float
    epochs: Sequence[float] = ()
    """Images a second of every epoch that counts; empty for one measurement."""


@dataclass(frozen=True)
class ImagesRecord:
    """Everything measured."""

    command: str
    hardware: str
    versions: Mapping[str, str]
    method: str
    cores: int
    """Processor cores that the measurement might use."""
    files: int
    mean_kilobytes: float
    batch: int
    seed: int = 0
    stages: Sequence[Stage] = ()
    runs: Sequence[Run] = ()
    memory_mib: Sequence[float] = field(default=())
    """Host memory of the loader's processes after each pass over the files (proportional set size)."""

    @property
    def ratios(self) -> dict[str, float]:
        """Training from files over training from memory, plain and as DeiT; evaluation over the forward pass alone."""
        rates = {run.name: run.images_per_second for run in self.runs}
        pairs = {
            "train_files": ("train from files", "train from memory"),
            "train_deit": ("train from files, DeiT", "train from memory"),
            "evaluate_files": ("evaluate from files", "forward pass"),
        }
        return {name: rates[one] / rates[other] for name, (one, other) in pairs.items() if {one, other} <= rates.keys()}

    @property
    def bottleneck(self) -> str:
        """The slowest stage."""
        slowest = min(self.stages, key=lambda stage: stage.images_per_second, default=None)
        return "" if slowest is None else slowest.name

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> "ImagesRecord":
        """From the content of the JSON."""
        found = {key: value for key, value in record.items() if key not in ("ratios", "bottleneck")}
        found["stages"] = tuple(Stage(**row) for row in record["stages"])
        found["runs"] = tuple(Run(**row) for row in record["runs"])
        return cls(**found)

    def record(self) -> dict[str, Any]:
        """As JSON has it, with what follows from the rows."""
        return {**asdict(self), "ratios": self.ratios, "bottleneck": self.bottleneck}
