"""What is kept of a run of the study, as its JSON and the published results have it."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import inf
from typing import Any

import numpy as np
from jaxtyping import Bool


@dataclass(frozen=True)
class Places:
    """Where a model looks by offset."""

    map: Sequence[Sequence[float]]
    """Mean over layers and heads, on a window around the target; infinite where exp(w) leaves float32."""
    distance: float | None
    """Mean distance in patches with each head's map as weights; None where all are flat."""
    uniform_distance: float
    """That of a flat map."""
    entropy: float | None = None
    """Mean entropy of softmax(w) in nats; None without position biases."""
    nearness: Sequence[float | None] | None = None
    """Spearman correlation of w with nearness by layer, mean of its heads that are not flat; None without biases."""
    positions: float | None = None
    """Mean places a head with a bias; None without position biases."""
    start_correlation: float | None = None
    """Mean |correlation| of w' with its start; None where nothing is kept of it."""
    without: float | None = None
    """Test accuracy (percent) with w = 0 everywhere; None without position biases."""


@dataclass(frozen=True)
class Run:
    """A finished run."""

    configuration: str
    """Name of a `Configuration`."""
    plan: str
    family: str
    epochs: int
    recipe: Mapping[str, Any]
    """The recipe's fields but for the trainer and the data's folder."""
    seed: int
    accuracy: float
    """Percent of the test images."""
    loss: float
    """Nats a test image."""
    right: str
    """Whether each test image is classified right, a bit an image, packed (NumPy's packbits) and in base 64."""
    images: int
    """Test images."""
    sizes: Mapping[str, float]
    """Accuracy (percent) by side in pixels of test images of another size."""
    pruned: Mapping[str, float]
    """Accuracy (percent) by offsets a head that are kept, those with the largest |exp(w) - 1|."""
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
    """Of the code that trained."""
    started: str
    """When training began, UTC."""
    finished: str = ""
    """When all was measured, UTC; empty in runs of before it was noted."""

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> "Run":
        """From a record such as `record` gives, or a JSON of it, which has null for what is infinite."""
        places = None
        if record["places"]:
            whole = [[inf if value is None else value for value in row] for row in record["places"]["map"]]
            places = Places(**{"distance": None, **record["places"], "map": whole})
        return cls(**{**record, "places": places})

    def record(self) -> dict[str, Any]:
        """As JSON has it: `places` empty where they are not looked at, and without what a mixer has not."""
        places = {} if self.places is None else asdict(self.places)
        found = {**asdict(self), "places": {key: value for key, value in places.items() if value is not None}}
        return {key: value for key, value in found.items() if key != "finished" or value}

    def identity(self) -> dict[str, Any]:
        """What says of which task it is the run: the fields of `Task.identity`."""
        return {key: getattr(self, key) for key in ("configuration", "plan", "family", "epochs", "recipe")}

    def rights(self) -> Bool[np.ndarray, "images"]:
        """Whether each test image is classified right."""
        packed = np.frombuffer(base64.b64decode(self.right), np.uint8)
        return np.unpackbits(packed, count=self.images).astype(bool)


def packed(right: Bool[np.ndarray, "images"]) -> str:
    """The words of `Run.right`."""
    return base64.b64encode(np.packbits(right).tobytes()).decode("ascii")


def by_configuration(runs: Sequence[Run]) -> dict[str, dict[int, Run]]:
    """Runs by configuration and seed."""
    table: dict[str, dict[int, Run]] = {}
    for run in runs:
        table.setdefault(run.configuration, {})[run.seed] = run
    return table
