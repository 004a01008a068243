"""What is kept of a run of the study, as its JSON and claims.json have it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Scores:
    """A model on a split."""

    accuracy: float
    """Percent."""
    loss: float
    """Nats an image."""


@dataclass(frozen=True)
class Places:
    """Where a model looks by offset."""

    map: Sequence[Sequence[float]]
    """Mean over layers and heads, on a window around the target."""
    distance: float
    """Mean distance in patches with each head's map as weights."""
    uniform_distance: float
    """That of a flat map."""
    entropy: float | None = None
    """Mean entropy of softmax(w) in nats; None without position biases."""


@dataclass(frozen=True)
class Run:
    """A finished run."""

    configuration: str
    """Name of a `Configuration`."""
    epochs: int
    recipe: Mapping[str, Any]
    """The recipe's fields but for the trainer and the data's folder."""
    seed: int
    long: bool
    """Whether it is a run that ships, of more epochs than claims are judged by."""
    accuracy: float
    """Percent of the test images."""
    loss: float
    """Nats a test image."""
    sizes: Mapping[str, float]
    """Accuracy (percent) by side in pixels of resized test images."""
    places: Places | None
    """None where a model's places are not looked at."""
    parameters: int
    val_accuracy: float
    """Percent, after the last epoch."""
    train_loss: float
    """Nats, of the last epoch."""
    images_per_second: float
    """Mean over the epochs but the first."""
    seconds: float
    """Of training."""
    resumed: bool
    """Whether `seconds` lack what was trained before a kill."""
    peak_memory_mib: float | None
    """Of the GPU; None on a CPU."""
    hardware: str
    versions: Mapping[str, str]
    commit: str | None

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> "Run":
        """From a record such as `record` gives."""
        return cls(**{**record, "places": Places(**record["places"]) if record["places"] else None})

    def record(self) -> dict[str, Any]:
        """As JSON has it: `places` empty where they are not looked at, and without an entropy where there is none."""
        places = {} if self.places is None else asdict(self.places)
        return {**asdict(self), "places": {key: value for key, value in places.items() if value is not None}}


def by_configuration(runs: Sequence[Run]) -> dict[str, dict[int, Run]]:
    """Runs by configuration and seed, the long ones left out."""
    table: dict[str, dict[int, Run]] = {}
    for run in runs:
        if not run.long:
            table.setdefault(run.configuration, {})[run.seed] = run
    return table
