"""The parametrizations of w as interchangeable modules that know themselves: a layer owns one and asks it for w."""

from collections.abc import Sequence

from aft_lens.layers.position_bias.base import PositionBias
from aft_lens.layers.position_bias.factorized import Factorized, LocalFactorized
from aft_lens.layers.position_bias.free import Free
from aft_lens.layers.position_bias.indexed import Indexed
from aft_lens.layers.position_bias.windowed import Reparameterized, SinglePosition, one_position

__all__ = [
    "Factorized",
    "Free",
    "Indexed",
    "LocalFactorized",
    "PositionBias",
    "Reparameterized",
    "SinglePosition",
    "conv_bias",
    "one_position",
    "pair_bias",
]


def conv_bias(
    kind: str, num_heads: int, window: Sequence[int], temperature: float = 0.5, *, straight_through: bool = False,
    start: float = 1.0,
) -> PositionBias:  # fmt: skip
    """Make AFT-conv's position bias: "free", "reparameterized" (the paper's default) or "single"."""
    if kind == "free":
        return Free(num_heads, *window)
    if kind == "reparameterized":
        return Reparameterized(num_heads, window, start)
    if kind == "single":
        return SinglePosition(num_heads, window, temperature, straight_through=straight_through, start=start)
    raise ValueError(f'position_bias must be "free", "reparameterized" or "single" for AFT-conv, got {kind!r}')


def pair_bias(kind: str, length: int, rank: int = 128, window_size: int | None = None) -> PositionBias:
    """Make AFT-full's and, with `window_size`, AFT-local's position bias: "free" or "factorized" (the default)."""
    if kind == "free":
        return Free(length, length)
    if kind == "factorized":
        return Factorized(length, rank) if not window_size else LocalFactorized(length, window_size, rank)
    raise ValueError(f'position_bias must be "free" or "factorized" for AFT-full and AFT-local, got {kind!r}')
