"""The parametrizations of w as interchangeable modules that know themselves: a layer owns one and asks it for w."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aft_lens.layers.position_bias.base import PositionBias
from aft_lens.layers.position_bias.factorized import Factorized, LocalFactorized
from aft_lens.layers.position_bias.free import Free
from aft_lens.layers.position_bias.indexed import Indexed, random_positions, ring_positions
from aft_lens.layers.position_bias.sparse import Entmax, HardConcrete, Spaced, TopK
from aft_lens.layers.position_bias.windowed import START, Reparameterized, SinglePosition, one_position

__all__ = [
    "CONV_BIASES",
    "START",
    "ConvBiasSpec",
    "Entmax",
    "Factorized",
    "Free",
    "HardConcrete",
    "Indexed",
    "LocalFactorized",
    "PositionBias",
    "Reparameterized",
    "SinglePosition",
    "Spaced",
    "TopK",
    "conv_bias",
    "one_position",
    "pair_bias",
]


@dataclass(frozen=True)
class ConvBiasSpec:
    """What AFT-conv's position biases are made from; each kind takes what concerns it."""

    num_heads: int
    window: Sequence[int]
    """Sides of the window, odd."""
    start: float = START
    """Standard deviation that w' of Eq. 8 starts with."""
    temperature: float = 0.5
    """tau of Eq. 10 (single, entmax)."""
    straight_through: bool = False
    """Eq. 10's forward pass with the sample's one-hot (single)."""
    positions: int = 1
    """Positions a head (topk, spaced)."""


CONV_BIASES: dict[str, Callable[[ConvBiasSpec], PositionBias]] = {
    "free": lambda spec: Free(spec.num_heads, *spec.window),
    "reparameterized": lambda spec: Reparameterized(spec.num_heads, spec.window, spec.start),
    "single": lambda spec: SinglePosition(
        spec.num_heads, spec.window, spec.temperature, straight_through=spec.straight_through, start=spec.start
    ),
    "topk": lambda spec: TopK(spec.num_heads, spec.window, spec.positions, spec.start),
    "hard_concrete": lambda spec: HardConcrete(spec.num_heads, spec.window, spec.start),
    "entmax": lambda spec: Entmax(spec.num_heads, spec.window, spec.temperature, spec.start),
    "spaced": lambda spec: Spaced(spec.num_heads, spec.window, spec.positions, spec.start),
    "random": lambda spec: random_positions(spec.num_heads, spec.window),
    "ring": lambda spec: ring_positions(spec.num_heads, spec.window),
}
"""AFT-conv's parametrizations of w by name: the paper's, its rivals, and controls whose positions are not learned."""


def conv_bias(kind: str, spec: ConvBiasSpec) -> PositionBias:
    """Make AFT-conv's position bias of a kind of `CONV_BIASES`. Raises ValueError on another, and as the kinds do."""
    if kind not in CONV_BIASES:
        raise ValueError(f"position_bias must be one of {', '.join(CONV_BIASES)} for AFT-conv, got {kind!r}")
    return CONV_BIASES[kind](spec)


def pair_bias(kind: str, length: int, rank: int = 128, window_size: int | None = None) -> PositionBias:
    """Make AFT-full's and, with `window_size`, AFT-local's position bias: "free" or "factorized" (the default)."""
    if kind == "free":
        return Free(length, length)
    if kind == "factorized":
        return Factorized(length, rank) if not window_size else LocalFactorized(length, window_size, rank)
    raise ValueError(f'position_bias must be "free" or "factorized" for AFT-full and AFT-local, got {kind!r}')
