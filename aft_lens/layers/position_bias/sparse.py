"""Rivals of Eq. 9 and 10: other ways to train a w that is 0 at most places of its window."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aft_lens.layers.optional import baseline
from aft_lens.layers.position_bias.base import PositionBias, drawn
from aft_lens.layers.position_bias.windowed import START, Derived

STRETCH = (-0.1, 1.1)
"""gamma and zeta of Louizos et al. (2018): a gate is stretched to this range and then clipped to [0, 1]."""
GATE_TEMPERATURE = 2 / 3
"""Their beta."""
GATE_START = 2.0
"""log alpha before any step: 92 % of the gates are open."""


class TopK(Derived):
    """Eq. 8's w at the `positions` places of each head where |w| is largest, 0 elsewhere.

    The gradient passes to every place as if none had been left out (straight-through), so that others can come in.
    Raises ValueError unless `positions` is 1 to the window's places.
    """

    def __init__(self, num_heads: int, window: Sequence[int], positions: int, start: float = START) -> None:
        super().__init__(num_heads, window, start)
        self.positions = within(positions, window)

    def forward(self) -> Float[Tensor, "h *window"]:
        """w at the kept places."""
        w = self.inner()
        flat = w.detach().flatten(1)
        kept = torch.zeros_like(flat).scatter(1, flat.abs().topk(self.positions, 1).indices, 1.0).reshape(w.shape)
        return w + (w * kept - w).detach() if self.training else w * kept


class HardConcrete(Derived):
    """Eq. 8's w times a gate a place, drawn from the hard concrete distribution (Louizos et al., 2018).

    Training draws gates, many of them exactly 0, and `expected_positions` is the penalty that closes them; evaluation
    takes their clipped means.
    """

    def __init__(self, num_heads: int, window: Sequence[int], start: float = START) -> None:
        super().__init__(num_heads, window, start)
        self.gate = nn.Parameter(torch.full((num_heads, *window), GATE_START))

    def forward(self) -> Float[Tensor, "h *window"]:
        """w times the gates."""
        low, high = STRETCH
        logit: Tensor = self.gate
        if self.training:
            noise = torch.rand_like(logit).clamp(1e-6, 1 - 1e-6)
            logit = (noise.logit() + logit) / GATE_TEMPERATURE
        return self.inner() * (logit.sigmoid() * (high - low) + low).clamp(0, 1)

    def expected_positions(self) -> Float[Tensor, "h"]:
        """Sum over a head's places of the probability that its gate is open: the L0 norm that is expected."""
        low, high = STRETCH
        return (self.gate - GATE_TEMPERATURE * math.log(-low / high)).sigmoid().flatten(1).sum(1)

    def redraw(self, sides: Sequence[int] = ()) -> None:
        """Draw the inner w' as at initialisation, and deal each head's gates to other places."""
        super().redraw(sides)
        flat = self.gate.data.flatten(1)
        order = torch.rand_like(flat).argsort(1)
        self.gate.data.copy_(flat.gather(1, order).reshape(self.gate.shape))


class Entmax(Derived):
    """Eq. 10 with 1.5-entmax (Peters et al., 2019) of w / tau in place of a sample: exact zeros without any noise.

    The lower the `temperature`, the fewer places are left. Raises ValueError if it is not above 0, ImportError with
    the next step without the package entmax.
    """

    def __init__(self, num_heads: int, window: Sequence[int], temperature: float = 0.5, start: float = START) -> None:
        super().__init__(num_heads, window, start)
        if temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        self.temperature = temperature
        self._entmax = baseline("entmax").entmax15

    def forward(self) -> Float[Tensor, "h *window"]:
        """w times its entmax over the window."""
        w = self.inner()
        return w * self._entmax(w.float().flatten(1) / self.temperature, dim=1).reshape(w.shape).to(w.dtype)


class Spaced(PositionBias):
    """`positions` biases a head at learned real-valued offsets: DCLS' learnable spacings (Khalfaoui-Hassani, 2023).

    Training spreads each over the four places around it by bilinear interpolation, which its offset's gradient is
    taken from; evaluation puts it on the nearest. Raises ValueError unless `positions` is 1 to the window's places.
    """

    def __init__(self, num_heads: int, window: Sequence[int], positions: int, start: float = START) -> None:
        super().__init__()
        self.window, self.start = tuple(window), start
        shape = num_heads, within(positions, window)
        self.weight = nn.Parameter(drawn(shape, start))
        self.spacing = nn.Parameter(torch.empty(*shape, len(self.window)))
        self._scatter()

    def forward(self) -> Float[Tensor, "h *window"]:
        """w laid out on the window."""
        w: Tensor = self.weight
        for axis, side in enumerate(self.window):
            place = self.spacing[..., axis].clamp(-(side // 2), side // 2)
            if not self.training:
                place = place.round()
            marks = torch.arange(side, device=place.device) - side // 2
            near = (1 - (place.unsqueeze(-1) - marks).abs()).clamp(min=0)
            w = w.unsqueeze(-1) * near.reshape(*near.shape[:2], *[1] * axis, side)
        return w.sum(1)

    def redraw(self, sides: Sequence[int] = ()) -> None:
        """Draw the offsets anew; biases stay."""
        self._scatter()

    @torch.no_grad()
    def _scatter(self) -> None:
        """Offsets uniform over the window."""
        half = torch.tensor([side / 2 for side in self.window], device=self.spacing.device)
        self.spacing.copy_((2 * torch.rand_like(self.spacing) - 1) * half)


def within(positions: int, window: Sequence[int]) -> int:
    """`positions` if a window has so many places; else ValueError."""
    if not 1 <= positions <= math.prod(window):
        raise ValueError(f"positions must be 1 to {math.prod(window)}, the window's places, got {positions}")
    return positions
