"""Offsets of a causal window in words and places: symbols back, or channels, pixels and rows of an image."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from aft_lens.layers.position_bias import PositionBias
from aft_lens.models import Decoder


def biases_of(model: Decoder) -> list[PositionBias]:
    """The position bias of each layer. Raises ValueError for a mixer that has none."""
    if model.config.traits.weights != "pair":
        raise ValueError(
            f"the decoder mixes with {model.config.mixer}, which has no position biases; give an AFT-local"
        )
    return [block.get_submodule("mixer.position_bias") for block in model.blocks]  # type: ignore[misc]


def window_of(model: Decoder) -> int:
    """Offsets 0 … s - 1 that have a bias: s of AFT-local, the length of AFT-full."""
    config = model.config
    return min(config.window_size, config.length) if config.mixer == "aft_local" else config.length


@torch.no_grad()
def by_offset(model: Decoder) -> list[Float[Tensor, "t s"]]:
    """w of each layer by target and offset t - t' = 0 … s - 1; 0 where there is no such source."""
    return [bias.by_distance(window_of(model)).detach() for bias in biases_of(model)]


def moved(w: Float[Tensor, "t s"]) -> Float[Tensor, "s"]:
    """Mean |exp(w) - 1| of each offset over the targets that have it: how far it moves a source's weight."""
    targets, offsets = (torch.arange(size, device=w.device) for size in w.shape)
    there = targets.unsqueeze(1) >= offsets
    return (torch.expm1(w).abs() * there).sum(0) / there.sum(0).clamp(min=1)


def place(offset: int, grid: Sequence[int]) -> tuple[int, int, int]:
    """(rows up, pixels left, channels back) of an offset in an image; pixels to the right are negative."""
    _, columns, channels = grid
    row = columns * channels
    up = (offset + row // 2 - 1) // row
    rest = offset - up * row
    left, back = divmod(rest, channels)
    return up, left, back


def words(offset: int, grid: Sequence[int]) -> str:
    """An offset as people say it."""
    if offset == 0:
        return "itself"
    if not grid:
        return f"{offset} back"
    up, left, back = place(offset, grid)
    if back:
        channel = f"{back} channel{'s' * (back > 1)} back"
        return channel if not up and not left else f"{channel} of {words(offset - back, grid)}"
    if (up, left) == (0, 1):
        return "previous pixel"
    if (up, left) == (1, 0):
        return "previous row"
    side = f"{abs(left)} {'left' if left > 0 else 'right'}" if left else ""
    return ", ".join(part for part in (f"{up} up" if up else "", side) if part)


def pictured(values: Float[np.ndarray, "s"], grid: Sequence[int]) -> Float[np.ndarray, "y x"]:
    """Values by offset as an image around the target, which is in the last row; NaN where there is no offset.

    Channels of a pixel are averaged. Text is one row, the target at its right end.
    """
    if not grid:
        return values[::-1][None].copy()
    spots = [place(offset, grid)[:2] for offset in range(len(values))]
    ups, lefts = (np.array(part) for part in zip(*spots, strict=True))
    shape = ups.max() + 1, lefts.max() - lefts.min() + 1
    sums, counts = np.zeros(shape), np.zeros(shape)
    at = ups.max() - ups, lefts.max() - lefts
    np.add.at(sums, at, values)
    np.add.at(counts, at, 1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def groups(window: int, grid: Sequence[int]) -> dict[str, list[int]]:
    """Offsets that belong together, by words: what a knock-out takes at once."""
    if not grid:
        found = {"itself": [0], "1 back": [1], "2 back": [2]}
        low = 3
        while low < window:
            high = min(window, 2 * low - 2 if low > 3 else 5)
            found[f"{low} to {high - 1} back"] = list(range(low, high))
            low = high
        return {name: kept for name, offsets in found.items() if (kept := [each for each in offsets if each < window])}
    rows: dict[str, list[int]] = {}
    for offset in range(window):
        up, left, back = place(offset, grid)
        if offset == 0:
            name = "itself"
        elif (up, left) == (0, 0) and back:
            name = "previous channels"
        elif up == 0:
            name = "previous pixel" if left == 1 else "rest of the row"
        elif up == 1:
            name = "previous row, same column" if left == 0 else "rest of the previous row"
        else:
            name = "rows before"
        rows.setdefault(name, []).append(offset)
    return rows
