"""Every head of a ViT by its relative attention: how far it looks, and how much of it goes to one offset."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from aft_lens.extraction import targets_per_offset
from aft_lens.statistics import Interval, percentile_interval
from analyses.maps.frame import mean_distance
from analyses.offset_maps import OffsetMaps

THIRD = 1 / 3
"""Share of a head's attention from which on one offset is what the head reads."""


@dataclass(frozen=True)
class Head:
    """One head over the images; intervals are 95 % over them."""

    layer: int
    head: int
    distance: float
    """Mean distance from a target to what it attends to, in patches, of patches alone."""
    distance_interval: Interval
    random_distance: float
    """The same of random weights."""
    dy: int
    """Offset (source minus target) with the largest mean attention, in patches; down is positive."""
    dx: int
    """Right is positive."""
    place: str
    """That offset in words."""
    share: float
    """Attention of a target on it, 0 to 1, mean over images and the targets that have it. What is not on patches goes
    to the class token."""
    share_interval: Interval
    random_share: float
    """The same of random weights, at the strongest offset of theirs."""


def place_words(dy: int, dx: int) -> str:
    """Where an offset's source lies as seen from its target; of a neighbour the side alone."""
    steps = [(abs(dy), "below" if dy > 0 else "above"), (abs(dx), "right" if dx > 0 else "left")]
    parts = [side if max(abs(dy), abs(dx)) == 1 else f"{count} {side}" for count, side in steps if count]
    return " and ".join(parts) or "the patch itself"


def read_heads(trained: OffsetMaps, random: OffsetMaps) -> tuple[Head, ...]:
    """Every head of a ViT, layer by layer, beside random weights; ValueError without bootstrap samples."""
    if trained.resampled is None:
        raise ValueError("trained must have bootstrap samples of the images; read it with resamples")
    distance, sampled = _distance(trained, trained.excess), _distance(trained, trained.resampled)
    away = percentile_interval(sampled)
    control = _distance(random, random.excess)
    share = _share(trained)
    bounds = percentile_interval((1 + trained.resampled) / np.prod(trained.grid))
    rows, columns = share.shape[2:]
    found = []
    for layer, head in np.ndindex(*share.shape[:2]):
        y, x = np.unravel_index(share[layer, head].argmax(), (rows, columns))
        dy, dx = int(y) - rows // 2, int(x) - columns // 2
        low, high = bounds[:, layer, head, y, x]
        found.append(
            Head(
                layer, head,
                float(distance[layer, head]), (float(away[0, layer, head]), float(away[1, layer, head])),
                float(control[layer, head]), dy, dx, place_words(dy, dx), float(share[layer, head, y, x]),
                (float(low), float(high)), float(_share(random)[layer, head].max()),
            )
        )  # fmt: skip
    return tuple(found)


def flat_distance(grid: tuple[int, int]) -> float:
    """Mean distance of attention that is the same everywhere on a grid, in patches."""
    return float(mean_distance(targets_per_offset(grid).numpy()))


def _distance(maps: OffsetMaps, excess: Float[np.ndarray, "*n dy dx"]) -> Float[np.ndarray, "*n"]:
    """Mean over targets, with attention as weights: an offset counts as often as the grid has it."""
    return mean_distance((1 + excess) * targets_per_offset(maps.grid).numpy())


def _share(maps: OffsetMaps) -> Float[np.ndarray, "layer head dy dx"]:
    """Mean attention at an offset."""
    return (1 + maps.excess) / np.prod(maps.grid)
