"""w at a few frozen offsets a head."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from aft_lens.layers.position_bias.base import PositionBias

RING = tuple((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0))
"""The eight neighbours."""


class Indexed(PositionBias):
    """k offsets a head: frozen places, biases that may still train.

    `offset` (`h k n`, source minus target) and `kept` (`h k`) are buffers, `weight` (`h k`) holds w there; w is 0
    elsewhere. A head that keeps fewer than k has its spare slots False in `kept`: they add nothing and never
    train. k = 0 is pooling alone (AFT-simple with one key channel a head). Raises ValueError if shapes differ.
    """

    offset: Tensor
    kept: Tensor

    def __init__(
        self,
        weight: Float[Tensor, "h k"],
        offset: Int[Tensor, "h k n"],
        kept: Bool[Tensor, "h k"] | None = None,
    ) -> None:
        super().__init__()
        if offset.shape[:2] != weight.shape:
            raise ValueError(f"offset must start like weight {tuple(weight.shape)}, got {tuple(offset.shape)}")
        if kept is None:
            kept = torch.ones_like(weight, dtype=torch.bool)
        if kept.shape != weight.shape:
            raise ValueError(f"kept must be like weight {tuple(weight.shape)}, got {tuple(kept.shape)}")
        self.weight = nn.Parameter(torch.where(kept, weight.detach(), 0.0))
        self.register_buffer("offset", offset.clone())
        self.register_buffer("kept", kept.clone())

    @property
    def keep(self) -> int:
        """k, the number of slots each head has (the widest head's number of kept offsets)."""
        return self.weight.shape[1]

    def forward(self) -> Float[Tensor, "h k"]:
        """w at the kept offsets and 0 in the spare slots, shape `h k`."""
        return torch.where(self.kept, self.weight, 0.0)

    def logits(self) -> None:
        """None: the places are frozen."""

    def dense(self, sides: Sequence[int] = ()) -> Float[Tensor, "h *window"]:
        """w laid out on a window of the given odd sides, 0 where nothing is kept."""
        return self._laid_out(self.weight, sides)

    def places(self, sides: Sequence[int] = ()) -> Bool[Tensor, "h *window"]:
        """The kept offsets on a window of the given odd sides, whatever their bias is."""
        return self._laid_out(torch.ones_like(self.weight), sides) != 0

    @torch.no_grad()
    def redraw(self, sides: Sequence[int] = ()) -> None:
        """Draw other places of a window of the given sides, distinct within a head; biases stay."""
        area, radius = math.prod(sides), torch.tensor([side // 2 for side in sides])
        place = torch.rand(len(self.weight), area).argsort(1)[:, : self.keep]
        self.offset.copy_(torch.stack(torch.unravel_index(place, tuple(sides)), -1) - radius)

    def _laid_out(self, values: Float[Tensor, "h k"], sides: Sequence[int]) -> Float[Tensor, "h *window"]:
        """Values of the used slots at their places on a window."""
        window = values.new_zeros(len(values), *sides)
        head, slot = self.kept.nonzero(as_tuple=True)
        radius = torch.tensor([side // 2 for side in sides], device=self.offset.device)
        place = (self.offset[head, slot] + radius).unbind(-1)
        return window.index_put((head, *place), values[head, slot])


def random_positions(num_heads: int, window: Sequence[int]) -> Indexed:
    """One position a head, drawn from the window before any training and never moved: the control of Eq. 10."""
    bias = Indexed(torch.zeros(num_heads, 1), torch.zeros(num_heads, 1, len(window), dtype=torch.long))
    bias.redraw(window)
    return bias


def ring_positions(num_heads: int, window: Sequence[int]) -> Indexed:
    """One position a head, the eight neighbours in turn. Raises ValueError unless the window is 2-D and 3 or wider."""
    if len(window) != 2 or min(window) < 3:
        raise ValueError(f"position_bias ring needs a 2-D window of 3 x 3 or more, got {tuple(window)}")
    turn = torch.tensor(RING)[torch.arange(num_heads) % len(RING)]
    return Indexed(torch.zeros(num_heads, 1), turn.unsqueeze(1))
