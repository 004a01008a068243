"""w between every two positions as a product of two factors (Eq. 7)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from aft_lens.layers.position_bias.base import NAIVE_STD, PositionBias, drawn
from aft_lens.ops import BiasFactors

CHUNK = 1024
"""Targets whose products are taken at once."""


class Factorized(PositionBias):
    """w = u v^T with u, v of `t rank` (Eq. 7), both N(0, 10^-2)."""

    def __init__(self, length: int, rank: int = 128) -> None:
        super().__init__()
        self.target = nn.Parameter(drawn((length, rank), NAIVE_STD))
        self.source = nn.Parameter(drawn((length, rank), NAIVE_STD))

    def operand(self, length: int | None = None) -> BiasFactors:
        """u and v, or their first `length` rows; the operators never multiply them out to T x T."""
        return BiasFactors(self.target[:length], self.source[:length])

    def forward(self) -> Float[Tensor, "t s"]:
        """w, shape `t s`, multiplied out to be looked at."""
        return self.target @ self.source.T

    def by_distance(self, window: int) -> Float[Tensor, "t s"]:
        """As every bias answers, in O(t s) memory."""
        padded = F.pad(self.source, (0, 0, window - 1, 0)).unfold(0, window, 1)
        parts = zip(self.target.split(CHUNK), padded.split(CHUNK), strict=True)
        return torch.cat([torch.einsum("tr,trs->ts", *part) for part in parts]).flip(1)

    def redraw(self, sides: Sequence[int] = ()) -> None:
        """Draw u and v as at initialisation."""
        nn.init.normal_(self.target, std=NAIVE_STD)
        nn.init.normal_(self.source, std=NAIVE_STD)


class LocalFactorized(Factorized):
    """Eq. 7 within Eq. 4's window: w = u v^T where |t - t'| < window_size, 0 elsewhere (AFT-local's default).

    Raises ValueError if `window_size` is below 1.
    """

    def __init__(self, length: int, window_size: int, rank: int = 128) -> None:
        super().__init__(length, rank)
        if window_size < 1:
            raise ValueError(f"window_size must be 1 or more, got {window_size}")
        self.window_size = window_size

    def forward(self) -> Float[Tensor, "t s"]:
        """w, shape `t s`, 0 outside the window."""
        position = torch.arange(len(self.target), device=self.target.device)
        near = (position.unsqueeze(1) - position).abs() < self.window_size
        return super().forward() * near

    def band(self) -> Float[Tensor, "t offset"]:
        """w by target and offset -(window_size - 1) ... window_size - 1, O(T s) memory, 0 past either end."""
        reach = self.window_size - 1
        padded = F.pad(self.source, (0, 0, reach, reach)).unfold(0, 2 * reach + 1, 1)
        return torch.einsum("tr,tro->to", self.target, padded)
