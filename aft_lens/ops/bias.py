"""Position biases as factors, and relative ones written out to every (target, source) pair of a grid."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

OUTSIDE = ("global", "none")


class BiasFactors(NamedTuple):
    """w = target @ source^T without ever being T x T (Eq. 7); both are `t rank`."""

    target: Float[Tensor, "t rank"]
    source: Float[Tensor, "t rank"]


class PreparedBias(NamedTuple):
    """A bias of AFT-conv as kernels read it: what they make of w alone, kept for a grid and a dtype of values."""

    w: Float[Tensor, "h *window"]
    e: Float[Tensor, "h t padded"]
    """e^(w - a), a head's largest bias a or 0."""
    span: Float[Tensor, "h"]
    """How far a head's biases and 0 lie apart."""
    grid: tuple[int, ...]
    dtype: torch.dtype


@lru_cache(maxsize=64)
def _source_offset(grid: tuple[int, ...]) -> Tensor:
    """Source minus target position for every pair of the grid, shape `t s n` (on the CPU)."""
    position = torch.tensor(list(product(*(range(size) for size in grid))))
    return position.unsqueeze(0) - position.unsqueeze(1)


def check_outside(outside: str) -> None:
    """Raise ValueError unless `outside` is one of `OUTSIDE`."""
    if outside not in OUTSIDE:
        raise ValueError(f"outside must be one of {OUTSIDE}, got {outside!r}")


def check_window(window: Sequence[int], grid: Sequence[int]) -> None:
    """Raise ValueError unless the window has odd sides and as many dimensions as the grid."""
    if len(window) != len(grid) or len(grid) not in (1, 2):
        raise ValueError(
            f"position_bias must have one window dimension for each of the grid's 1 or 2 dimensions, "
            f"got window {tuple(window)} for grid {tuple(grid)}"
        )
    if any(side % 2 == 0 for side in window):
        raise ValueError(f"position_bias must have odd window sides, got {tuple(window)}")


def causal_mask(length: int, device: torch.device | str = "cpu") -> Tensor:
    """True where a source comes after its target in raster order, shape `t s`."""
    return torch.ones(length, length, dtype=torch.bool, device=device).triu(1)


def expand_bias(
    position_bias: Float[Tensor, "h *window"],
    grid: Sequence[int],
    *,
    causal: bool = False,
    outside: str = "global",
) -> Float[Tensor, "h t s"]:
    """Write AFT-conv's bias out to every (target, source) pair: Eq. 4 on a grid.

    Pairs outside the window get 0 (`outside="global"`) or -inf (`outside="none"`); with `causal`, sources
    after the target in raster order get -inf. Raises ValueError on an even window or a wrong dimension.
    """
    window = position_bias.shape[1:]
    check_outside(outside)
    check_window(window, grid)
    offset = _source_offset(tuple(grid))
    radius = torch.tensor([side // 2 for side in window])
    index = offset + radius
    inside = ((index >= 0) & (index < torch.tensor(window))).all(-1)
    flat = torch.zeros(index.shape[:2], dtype=torch.long)
    for dim, side in enumerate(window):
        flat = flat * side + index[..., dim].clamp(0, side - 1)
    flat, inside = flat.to(position_bias.device), inside.to(position_bias.device)
    expanded = position_bias.flatten(1)[:, flat]
    expanded = expanded.masked_fill(~inside, 0.0 if outside == "global" else float("-inf"))
    if causal:
        expanded = expanded.masked_fill(causal_mask(flat.shape[0], flat.device), float("-inf"))
    return expanded


def source_index(offset: Int[Tensor, "h k n"], grid: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Flat source position of every target and kept offset, and whether it lies on the grid.

    Both have shape `h k t`; the index of a source off the grid is 0. Raises ValueError on a wrong dimension.
    """
    if offset.shape[-1] != len(grid):
        raise ValueError(f"offset must have {len(grid)} coordinates for grid {tuple(grid)}, got {offset.shape[-1]}")
    position = torch.tensor(list(product(*(range(size) for size in grid))), device=offset.device)
    source = position + offset.unsqueeze(2)
    size = torch.tensor(tuple(grid), device=offset.device)
    inside = ((source >= 0) & (source < size)).all(-1)
    flat = torch.zeros(source.shape[:3], dtype=torch.long, device=offset.device)
    for dim in range(len(grid)):
        flat = flat * size[dim] + source[..., dim]
    return flat.masked_fill(~inside, 0), inside


def expand_offsets(
    position_bias: Float[Tensor, "h k"], offset: Int[Tensor, "h k n"], grid: Sequence[int]
) -> Float[Tensor, "h t s"]:
    """Write k kept offsets a head out to every (target, source) pair; 0 at every other pair."""
    flat, inside = source_index(offset, grid)
    heads, _, length = flat.shape
    kept = position_bias.unsqueeze(-1).where(inside, 0.0)
    expanded = position_bias.new_zeros(heads, length, length)
    return expanded.scatter_add(2, flat.transpose(1, 2), kept.transpose(1, 2))
