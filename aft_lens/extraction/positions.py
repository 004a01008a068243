"""What a model's attention adds by offset alone: relative-position biases and gated positions."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from aft_lens.extraction.adapters import ADAPTERS
from aft_lens.extraction.offsets import fold_offsets, targets_per_offset, unfold_offsets
from aft_lens.extraction.request import Request

NEAR = 1e-5
"""Largest difference, as a fraction of the largest bias, between pairs of one offset."""


@dataclass(frozen=True)
class PositionMap:
    """One layer's positions by offset = source - target, (0, 0) in the middle, `2H-1 2W-1` for a window of H x W."""

    layer: str
    """Dotted name of the module."""
    kind: Literal["bias", "gated"]
    """"bias": nats added to the scores before the softmax. "gated": the positional attention itself (ConViT)."""
    maps: Float[Tensor, "head dy dx"]
    gate: Float[Tensor, "head"] | None = None
    """Share of the head's attention that positions give, in [0, 1]; for "gated" alone."""


def open_positions(
    spec: str, *, pretrained: bool = True, grid: tuple[int, int] | None = None, seed: int = 0
) -> list[PositionMap]:
    """Read the positions of a model by layer, in the frame of `relative_attention`, where its adapter knows them.

    Of timm's models: Swin's and Swin V2's relative-position biases by window, those of vit_relpos_*, BEiT and MaxViT,
    and ConViT's gated positions. Arguments as in `open_source`. Raises ValueError on a model that has none, and says
    what was looked for, and as `open_source` does.
    """
    kind, _, name = spec.partition(":")
    read = getattr(ADAPTERS[kind], "open_positions", None) if kind in ADAPTERS else None
    if read is None:
        raise ValueError(
            f"source {spec!r}: relative positions are read from timm's models; give timm:NAME, or a model of another "
            "adapter with open_positions"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return read(Request(spec, name, pretrained, grid, None))


def bias_map(layer: str, pairs: Float[Tensor, "h t s"], window: tuple[int, int]) -> PositionMap:
    """The bias of each offset from that of every (target, source) pair, prefix tokens left out.

    Averaging over pairs keeps the frame whatever order a library's table has. Raises RuntimeError if pairs of one
    offset differ: the bias is then no function of the offset.
    """
    area = window[0] * window[1]
    patches = pairs.detach().double()[:, -area:, -area:]
    maps = fold_offsets(patches, window) / targets_per_offset(window)
    difference = (unfold_offsets(maps, window) - patches).abs().max().item()
    if difference > NEAR * max(patches.abs().max().item(), 1e-12):
        raise RuntimeError(f"{layer}: the bias of pairs with the same offset differs by {difference:.2g}")
    return PositionMap(layer, "bias", maps.float())
