"""Sums over the (target, source) pairs of a grid that share an offset."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def fold_offsets(pairs: Float[Tensor, "*n t s"], grid: Sequence[int]) -> Float[Tensor, "*n dy dx"]:
    """Sum a weight for every (target, source) pair of a grid over the pairs with the same offset.

    `grid` is (H, W) with H W = t = s in raster order; the result is `2H-1 2W-1` with offset (0, 0) in its middle
    and offset = source - target. Raises ValueError if the pairs do not fit the grid.
    """
    rows, columns = grid
    if pairs.shape[-2:] != (rows * columns, rows * columns):
        raise ValueError(f"pairs must end in {rows * columns} x {rows * columns} for grid {tuple(grid)}, "
                         f"got {tuple(pairs.shape[-2:])}")  # fmt: skip
    lead = pairs.shape[:-2]
    pairs = pairs.reshape(*lead, rows, columns, rows, columns)
    by_row = pairs.new_zeros(*lead, 2 * rows - 1, columns, columns)
    for y in range(rows):
        by_row[..., rows - 1 - y : 2 * rows - 1 - y, :, :] += pairs[..., y, :, :, :].movedim(-2, -3)
    folded = pairs.new_zeros(*lead, 2 * rows - 1, 2 * columns - 1)
    for x in range(columns):
        folded[..., columns - 1 - x : 2 * columns - 1 - x] += by_row[..., x, :]
    return folded


def targets_per_offset(grid: Sequence[int], device: torch.device | str = "cpu") -> Float[Tensor, "dy dx"]:
    """How many targets of a grid have a source at each offset: (H - |dy|)(W - |dx|)."""
    sides = [side - torch.arange(1 - side, side, device=device, dtype=torch.float64).abs() for side in grid]
    return sides[0][:, None] * sides[1][None, :]


def unfold_offsets(maps: Float[Tensor, "*n dy dx"], grid: Sequence[int]) -> Float[Tensor, "*n t s"]:
    """Write a map over offsets out to every (target, source) pair of a grid: the inverse frame of `fold_offsets`.

    Raises ValueError unless the map has sides 2H-1 and 2W-1.
    """
    rows, columns = grid
    if maps.shape[-2:] != (2 * rows - 1, 2 * columns - 1):
        raise ValueError(f"maps must end in {2 * rows - 1} x {2 * columns - 1} for grid {tuple(grid)}, "
                         f"got {tuple(maps.shape[-2:])}")  # fmt: skip
    y = torch.arange(rows, device=maps.device)
    x = torch.arange(columns, device=maps.device)
    dy = (y[None, :] - y[:, None] + rows - 1)[:, None, :, None]
    dx = (x[None, :] - x[:, None] + columns - 1)[None, :, None, :]
    return maps[..., dy, dx].reshape(*maps.shape[:-2], rows * columns, rows * columns)
