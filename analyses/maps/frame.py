"""Maps by offset on their frame: the target in the middle, cropped or filled to another frame, distances from it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float


def framed(maps: Float[np.ndarray, "*n dy dx"], sides: Sequence[int], beyond: float = 0.0) -> np.ndarray:
    """Maps by offset on another frame around the same target: cropped where it is smaller, filled where larger.

    Raises ValueError unless all sides are odd, so that both frames have a middle.
    """
    if any(side % 2 == 0 for side in (*sides, *maps.shape[-2:])):
        raise ValueError(f"sides must be odd to have a target in the middle, got {tuple(sides)} for "
                         f"{maps.shape[-2:]}")  # fmt: skip
    out = np.full((*maps.shape[:-2], *sides), beyond, dtype=float)
    target: list[Any] = [...]
    source: list[Any] = [...]
    for have, want in zip(maps.shape[-2:], sides, strict=True):
        common = min(have, want)
        target.append(slice((want - common) // 2, (want + common) // 2))
        source.append(slice((have - common) // 2, (have + common) // 2))
    out[tuple(target)] = maps[tuple(source)]
    return out


def offsets(sides: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Delta y and Delta x of every place of a frame, in patches."""
    y, x = np.meshgrid(*(np.arange(side) - side // 2 for side in sides), indexing="ij")
    return y, x


def mean_distance(maps: Float[np.ndarray, "*n dy dx"]) -> Float[np.ndarray, "*n"]:
    """Distance to the middle in patches, averaged with non-negative maps as weights; NaN where a map has none."""
    total = np.asarray(maps.sum((-2, -1)))
    weighted = (maps * np.hypot(*offsets(maps.shape[-2:]))).sum((-2, -1))
    return np.divide(weighted, total, out=np.full(total.shape, np.nan), where=total > 0)
