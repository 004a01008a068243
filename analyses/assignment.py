"""The best one-to-one assignment of heads, and the random exchanges of offsets that it is held against."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from aft_lens.later import later

if TYPE_CHECKING:
    from scipy import optimize
else:
    optimize = later("scipy.optimize")


def assign(likeness: Float[np.ndarray, "a b"]) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"]]:
    """The one-to-one assignment with the highest total likeness: rows, and the column of each.

    Of a matrix that is not square, the shorter side is assigned whole.
    """
    return optimize.linear_sum_assignment(likeness, maximize=True)


def exchangeable(window: Sequence[int], null: str) -> list[Int[np.ndarray, "n"]]:
    """Flat places of a window that a null may exchange: all for "places"; for "rings", those equally far out."""
    places = np.indices(tuple(window)).reshape(len(window), -1)
    if null == "places":
        return [np.arange(places.shape[1])]
    distance = sum((axis - side // 2) ** 2 for axis, side in zip(places, window, strict=True))
    return [np.flatnonzero(distance == value) for value in np.unique(distance)]


def relabelling(groups: Sequence[Int[np.ndarray, "n"]], generator: np.random.Generator) -> Int[np.ndarray, "places"]:
    """An order of all places that exchanges each group's at random among themselves."""
    order = np.empty(sum(map(len, groups)), dtype=int)
    for group in groups:
        order[group] = generator.permutation(group)
    return order
