"""How alike two maps by offset are: correlation, and earth mover's distance."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from aft_lens.later import later
from analyses.maps.frame import offsets

if TYPE_CHECKING:
    import ot
    from scipy.spatial import distance
else:
    ot = later("ot")
    distance = later("scipy.spatial.distance")

MEASURES = ("correlation", "earth mover's distance")
BINS = 7
"""Bins along a side for the earth mover's distance: an exact transport over 49 bins takes 0.1 ms."""


def likeness(
    first: Float[np.ndarray, "a y x"], second: Float[np.ndarray, "b y x"], measure: str
) -> Float[np.ndarray, "a b"]:
    """How alike every two maps are: their Pearson correlation, or minus their earth mover's distance in patches.

    Maps are weights relative to a uniform share, minus 1. The correlation sees where they are high and low, not how
    much. The earth mover's distance carries the weights themselves, 1 + map, scaled to sum 1, over the offset grid at
    Euclidean cost (exact, by network simplex): near misses are near, and a sharp head is far from a faint one. Along a
    side of more than `BINS` offsets, weights are first summed into bins around the target.
    """
    if measure == "correlation":
        a, b = (standardised(maps) for maps in (first, second))
        return a @ b.T / a.shape[1]
    a, cost = _binned(first)
    b, _ = _binned(second)
    return np.array([[-ot.emd2(one, other, cost, check_marginals=False) for other in b] for one in a])


def standardised(maps: Float[np.ndarray, "n y x"]) -> Float[np.ndarray, "n places"]:
    """Each map as a row of mean 0 and standard deviation 1."""
    flat = maps.reshape(len(maps), -1)
    return (flat - flat.mean(1, keepdims=True)) / flat.std(1, keepdims=True)


def _binned(maps: Float[np.ndarray, "n y x"]) -> tuple[np.ndarray, np.ndarray]:
    """Weights summed into at most `BINS` bins a side, scaled to sum 1, and the distance between bins in patches."""
    size = [next(odd for odd in range(1, side + 2, 2) if side <= odd * BINS) for side in maps.shape[1:]]
    index = [np.floor((place + odd / 2) / odd).astype(int) for place, odd in zip(offsets(maps.shape[1:]), size)]
    index = [axis - axis.min() for axis in index]
    columns = index[1].max() + 1
    flat = (index[0] * columns + index[1]).ravel()
    weights = np.zeros((len(maps), (index[0].max() + 1) * columns))
    np.add.at(weights.T, flat, 1 + maps.reshape(len(maps), -1).T)
    y, x = np.divmod(np.arange(weights.shape[1]), columns)
    middle = np.stack([y * size[0], x * size[1]], 1).astype(float)
    return weights / weights.sum(1, keepdims=True), distance.cdist(middle, middle)
