"""What is replaced, in which order, and where the counting stops."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aft_lens.extraction import AttentionReader
from analyses.ablate.rung import Rung

ORDERS = {
    "explained": "most explained by offset first",
    "deviation": "attention that deviates least over images first",
    "damage": "least damage when replaced alone first",
    "greedy": "least damage beside those replaced before first",
    "random": "at random",
}
"""How heads are ranked for replacing more and more of them. deviation is the published rival's (arXiv 2605.22132), as
far as its name says it: conv-like heads are those whose attention changes least. damage and greedy are measured on
calibration images, never on those that accuracies are measured on."""
RUNGS = ("map", "offsets:4", "offsets:1", "kernel", "uniform", "mean", "resample", "zero")
MOST_POINTS = 9
"""Points of a curve before the count is narrowed down."""


@dataclass(frozen=True)
class Plan:
    """All replacements of one model; `plan_for` makes it."""

    rungs: tuple[Rung, ...]
    """A curve each, heads in the first of `orders`."""
    orders: tuple[str, ...]
    """A curve of `by` each; of `ORDERS`."""
    by: Rung
    """What damage and greedy orders replace heads by, and what the orders are compared by."""
    counts: tuple[int, ...]
    """Heads replaced at each point of the curves, rising."""
    single: tuple[Rung, ...]
    """Replacements that each head gets alone."""
    layers: tuple[Rung, ...]
    """Replacements that all heads of each layer get at once."""
    step: int
    """Heads that a round of the greedy order takes."""
    rounds: int
    """Of the greedy order; the heads left then follow by their damage in the last one. 0: until none is left."""
    tolerance: float
    """Points of accuracy (hundredths of the cosine without classes) that may be lost."""
    minimality: bool
    """True: every head within the tolerance has its offsets taken away again, alone."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.rungs or not self.orders or not set(self.orders) <= set(ORDERS):
            raise ValueError(f"orders must be some of {', '.join(ORDERS)}, got {list(self.orders)}")
        if self.step < 1 or self.rounds < 0 or self.tolerance < 0:
            raise ValueError(
                f"step must be 1 or more, rounds and tolerance 0 or more, got {self.step}, {self.rounds} and "
                f"{self.tolerance}"
            )


def plan_for(
    reader: AttentionReader,
    *,
    rungs: Sequence[str] = RUNGS,
    orders: Sequence[str] = ("explained", "deviation", "random"),
    by: str = "offsets:1",
    counts: Sequence[int] | None = None,
    single: Sequence[str] = ("offsets:1",),
    layers: Sequence[str] = (),
    step: int = 1,
    rounds: int = 0,
    tolerance: float = 1.0,
    minimality: bool = True,
    seed: int = 0,
) -> Plan:
    """The plan for a model, with nine counts of heads up to all of them if left out.

    Raises ValueError, naming the argument, on what the model cannot take.
    """
    heads = len(reader.layers) * reader.num_heads
    steps = np.linspace(0, heads, min(MOST_POINTS, heads) + 1).round().astype(int)[1:].tolist()
    points = tuple(sorted(set(steps if counts is None else counts)))
    if not points or points[0] < 1 or points[-1] > heads:
        raise ValueError(f"counts must be from 1 to {heads}, the heads that there are, got {list(points)}")
    read: list[tuple[Rung, ...]] = [tuple(Rung.read(one) for one in names) for names in (rungs, single, layers)]
    return Plan(
        read[0], tuple(orders), Rung.read(by), points, read[1], read[2], step, rounds, tolerance, minimality, seed
    )  # fmt: skip
