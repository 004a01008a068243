"""w itself as the parameter."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aft_lens.layers.position_bias.base import NAIVE_STD, PositionBias, drawn


class Free(PositionBias):
    """w itself is the parameter (the "naive" one of Tables 9 and 10), shape `h *window` or `t s`."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(drawn(shape, NAIVE_STD))

    def forward(self) -> Float[Tensor, "..."]:
        """w."""
        return self.weight

    @torch.no_grad()
    def assign(self, w: Float[Tensor, "..."]) -> None:
        """Set w."""
        self.weight.copy_(w)

    def redraw(self, sides: Sequence[int] = ()) -> None:
        """Draw w as at initialisation."""
        nn.init.normal_(self.weight, std=NAIVE_STD)
