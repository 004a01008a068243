"""Result of an analysis to the stack of maps that the mosaics draw, all weights in one unit."""

import numpy as np
from analyses.attention import AttentionMaps
from analyses.bias import BiasMaps
from analyses.keys import KeyMaps

from app.views.stack import MapStack

EXCESS = "weight ÷ unbiased − 1"
"""exp(w) − 1 is how much heavier an offset weighs than without a bias; attention × positions − 1 is the same."""


def of_bias(result: BiasMaps, label: str) -> MapStack:
    """exp(w) − 1 by offset, the paper's Fig. 6 to 8 (for AFT-full by offset, averaged as the analysis says)."""
    return MapStack(result.maps, "exp(w) − 1", label=label)


def of_attention(result: AttentionMaps, label: str, positions: int | None = None) -> MapStack:
    """Relative attention by offset; given the grid's `positions`, as excess over uniform attention.

    Uniform attention weighs each of n positions 1/n, so n × attention − 1 is 0 for it: the same scale as
    exp(w) − 1, where 0 means that an offset weighs no more than any other.
    """
    if positions is None:
        return MapStack(result.maps, "mean attention", label=label)
    return MapStack(result.maps * positions - 1.0, "n × attention − 1", label=label)


def of_keys(result: KeyMaps, label: str) -> MapStack:
    """Keys on the image's grid, each head's mean taken off (a constant added to K changes nothing)."""
    centred = result.maps - result.maps.mean((2, 3), keepdims=True)
    return MapStack(centred, "K − mean", by_offset=False, label=label)


def mean_distance(stack: MapStack) -> np.ndarray:
    """Mean distance (in patches) of the offsets that weigh more than zero, by that much, `layer head`.

    The same for exp(w) − 1 and for attention in excess of uniform; NaN where no offset weighs more than zero.
    """
    weight = np.nan_to_num(stack.values).clip(min=0.0)
    rows, columns = stack.frame
    y, x = np.arange(rows) - rows // 2, np.arange(columns) - columns // 2
    distance = np.hypot(y[:, None], x[None, :])
    total = weight.sum((2, 3))
    return np.where(total > 0, (weight * distance).sum((2, 3)) / np.where(total > 0, total, 1.0), np.nan)
