"""multi_gpu.json: what `aft-lens bench multi_gpu` measured, in typed rows."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from aft_lens.statistics import Interval

NAME = "multi_gpu.json"


@dataclass(frozen=True)
class GPUCount:
    """Training on a number of GPUs."""

    gpus: int
    images_per_second: float
    """Of all GPUs."""
    peak_memory_mib: float
    """Largest of a GPU."""
    scaling_efficiency: float
    """Images a second over those of as many single GPUs."""
    test_accuracy: tuple[float, ...] = ()
    """Percent, by seed; empty where it is not measured yet."""
    difference: Interval | None = None
    """95 % interval of the accuracy's difference to one GPU, points; None where there is none."""

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> "GPUCount":
        """From a row such as `record` gives."""
        found: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
        return cls(**found)

    def record(self) -> dict[str, Any]:
        """As JSON has it: what is not measured is left out."""
        return {key: value for key, value in asdict(self).items() if value not in (None, ())}


@dataclass(frozen=True)
class Resumed:
    """A run that was stopped on some GPUs and went on with fewer."""

    gpus_before: int
    gpus_after: int
    epochs_before: int
    """When it was stopped."""
    epochs: int
    """In the end."""
    test_accuracy: float
    """Percent."""
