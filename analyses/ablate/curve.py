"""Curves over the number of heads replaced: points with intervals, areas under them, and how many heads are enough."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from aft_lens.statistics import Interval, percentile_interval
from analyses.ablate.bench import Row
from analyses.ablate.rung import Rung
from analyses.explain.causal import Head

DRAWS = 1000
"""Bootstrap samples of the images for the intervals of areas."""


@dataclass(frozen=True)
class Point:
    """A replaced model beside the intact one; intervals are 95 % and paired by image."""

    count: int
    """Heads replaced."""
    score: float
    """Accuracy, or without classes mean cosine of the features with the intact model's; 0 to 1."""
    change: float
    interval: Interval
    """Of the change of the score."""
    loss: float | None
    """Mean change of the cross entropy, nats; None without classes."""
    loss_interval: Interval | None
    agreement: dict[str, Any]
    """Of the features; see `Agreement`."""

    @classmethod
    def of(cls, count: int, row: Row, intact: Row) -> "Point":
        """From rows on the same images."""
        if row.right:
            effect = row.effect(intact)
            return cls(
                count, effect.accuracy, effect.change, effect.interval, effect.loss, effect.loss_interval, row.agreement
            )
        cosine, (low, high) = row.agreement["cosine"], row.agreement["cosine_interval"]
        return cls(count, cosine, cosine - 1, (low - 1, high - 1), None, None, row.agreement)

    @property
    def points(self) -> str:
        """Change of the score in points with its interval, as text."""
        low, high = self.interval
        return f"{100 * self.change:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


@dataclass(frozen=True)
class Area:
    """Area under a curve over the share of heads replaced, from none to all; 1 where nothing is ever lost."""

    value: float
    interval: Interval
    """95 %, over bootstrap samples of the images."""

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.interval[0]:.3f}, {self.interval[1]:.3f}]"


@dataclass(frozen=True)
class Curve:
    """One replacement, more and more heads in one order."""

    order: str
    rung: Rung
    heads: tuple[Head, ...]
    """All heads in that order."""
    points: tuple[Point, ...]
    rows: tuple[Row, ...]
    """One for each point."""
    within: int
    """Heads replaced at the last point before the first that loses more than the tolerance; 0 if that is the first."""
    surely: int
    """The same where the whole interval of the change must be within."""

    def scores(self, intact: Row) -> tuple[Float[np.ndarray, "point"], Float[np.ndarray, "point image"]]:
        """Share of the heads that are replaced, and the score of each image, the intact model first."""
        shares = [0.0, *(point.count / len(self.heads) for point in self.points)]
        return np.array(shares), np.stack([_by_image(row) for row in (intact, *self.rows)])

    def record(self) -> dict[str, Any]:
        """Without rows."""
        return {
            "order": self.order, "rung": self.rung.name, "words": self.rung.words, "heads": self.heads,
            "within": self.within, "surely": self.surely, "points": [asdict(point) for point in self.points],
        }  # fmt: skip


def reach(points: Sequence[Point], tolerance: float) -> tuple[int, int]:
    """Heads within the tolerance and surely within; see `Curve`. `tolerance` is in points."""
    found = [0, 0]
    for place, bound in enumerate((lambda p: p.change, lambda p: p.interval[0])):
        for point in points:
            if bound(point) < -tolerance / 100 - 1e-12:
                break
            found[place] = point.count
    return found[0], found[1]


def next_count(points: Sequence[Point], tolerance: float) -> int | None:
    """A count between the last point within the tolerance and the first beyond; None once they are neighbours."""
    within, _ = reach(points, tolerance)
    beyond = min((point.count for point in points if point.count > within), default=None)
    return None if beyond is None or beyond - within < 2 else (within + beyond) // 2


def areas(
    curve: Curve, intact: Row, floor: Row | None = None, *, less: Curve | None = None, seed: int = 0
) -> Area | None:
    """Area under a curve with its interval; of the score over the intact one's.

    With `floor`, the model with every head ablated, of faithfulness (score - floor) / (intact - floor), as MIB's CPR
    (Mueller et al. 2025): the floor depends on the ablation. With `less`, the difference to another curve's area on
    the same samples. Without classes cosines take the place of accuracies. None unless the curve goes on to all heads,
    or where the floor is not below the intact model.
    """
    curves = [curve, *([less] if less else [])]
    if any(not one.points or one.points[-1].count != len(one.heads) for one in curves):
        return None
    drawn = np.random.default_rng(seed).multinomial(len(_by_image(intact)), _even(intact), DRAWS) / len(
        _by_image(intact)
    )
    weights = np.concatenate([_even(intact)[None], drawn])  # the data, then the samples
    bottom = 0.0 if floor is None else weights @ _by_image(floor)
    values = []
    for one in curves:
        shares, scores = one.scores(intact)
        level = weights @ scores.T
        with np.errstate(divide="ignore", invalid="ignore"):
            faithful = (level - np.reshape(bottom, (-1, 1))) / (level[:, :1] - np.reshape(bottom, (-1, 1)))
        values.append(np.trapezoid(faithful, shares, axis=1))
    found = values[0] - values[1] if less else values[0]
    top = weights @ _by_image(intact)
    if (top[0] - np.ravel(bottom)[0]) <= 0:
        return None
    low, high = percentile_interval(found[1:][np.isfinite(found[1:])]).tolist()
    return Area(float(found[0]), (low, high))


def _even(row: Row) -> Float[np.ndarray, "image"]:
    count = len(_by_image(row))
    return np.full(count, 1 / count)


def _by_image(row: Row) -> Float[np.ndarray, "image"]:
    """Each image's score."""
    return row.outcome().right.astype(float) if row.right else np.array(row.cosines)
