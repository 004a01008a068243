"""What a criterion is, and all of them by name."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from aft_lens.models import VisionModel
from aft_lens.registry import Registry
from analyses.pruning.measuring.cost import Batches

Score = Callable[[VisionModel, Batches, int], list[Tensor]]
"""Of a model, calibration batches and a seed: scores, one `h y x` a layer, 0 wherever the bias is 0."""


@dataclass(frozen=True)
class Criterion:
    """How offsets are ranked."""

    score: Score
    words: str
    """What is kept, for menus: "largest |exp(w) - 1|"."""
    measured: bool = False
    """Whether it needs calibration images."""
    control: bool = False
    """Whether it knows nothing of what the model has learned."""


CRITERIA: Registry[Criterion] = Registry("criterion", "aft_lens.criteria")


def score(model: VisionModel, criterion: str, batches: Batches = (), *, seed: int = 0) -> list[Tensor]:
    """Score every offset of every head, one `h y x` a layer, by a criterion's name.

    An offset whose bias is 0 does nothing and scores 0 by any criterion. Measured criteria take `batches` and raise
    ValueError without any; an unknown name raises ValueError (and says which there are).
    """
    chosen = CRITERIA[criterion]
    if chosen.measured and not batches:
        raise ValueError(f"batches must hold calibration images for criterion {criterion!r}, got none")
    return chosen.score(model, batches, seed)
