"""What every parametrization of w can be asked: nobody outside asks which of them it holds."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from aft_lens.mode import evaluating
from aft_lens.ops import BiasFactors

NAIVE_STD = 0.1
"""N(0, 10^-2) of Sec. 5.1 read as a variance: standard deviation 0.1."""


def drawn(shape: Sequence[int], std: float) -> Tensor:
    """Normal numbers of mean 0; none on the meta device, where PyTorch would import its compiler for them."""
    empty = torch.empty(tuple(shape))
    return empty if empty.is_meta else empty.normal_() * std


class PositionBias(nn.Module):
    """A parametrization of w: by offset on a window (AFT-conv, `h *window`) or by pair (AFT-full and -local, `t s`).

    `samples` is True where training draws positions (Eq. 10); such a bias has a `temperature` that can be set.
    """

    samples: ClassVar[bool] = False
    temperature: float
    """tau of Eq. 10; of one that samples alone."""
    offset: Tensor | None
    """Kept offsets `h k n`, source minus target; None where w is dense."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("offset", None)

    def forward(self) -> Float[Tensor, "..."]:
        """w as this mode computes with it: `h *window`, `t s`, or `h k` at the kept offsets."""
        raise NotImplementedError

    def few(self) -> tuple[Float[Tensor, "h k"], Int[Tensor, "h k n"]] | None:
        """w of this mode as biases at a few offsets a head, where it is 0 at all others; None where it is dense."""
        return None if self.offset is None else (self(), self.offset)

    def logits(self) -> Float[Tensor, "..."] | None:
        """w before any sampling; None where the places are frozen."""
        return self()

    def direction(self) -> Float[Tensor, "..."] | None:
        """What says where w is large, also while w is 0 (Eq. 8's w'); None where the places are frozen."""
        return self.logits()

    def entropy(self) -> Float[Tensor, "h"] | None:
        """Entropy of softmax(w) over each head's window in nats (Eq. 9); None where the places are frozen."""
        w = self.logits()
        if w is None:
            return None
        log = torch.log_softmax(w.float().flatten(1), dim=1)
        return -(log.exp() * log).sum(1)

    def expected_positions(self) -> Float[Tensor, "h"] | None:
        """Places that each head is expected to have a bias at, where training has a gate for each; else None."""

    def dense(self, sides: Sequence[int] = ()) -> Float[Tensor, "..."]:
        """w as evaluation computes with it, whatever the mode, written out.

        `sides` are those of the window that frozen places are laid out on; other biases have their own.
        """
        with evaluating(self):
            return self()

    def places(self, sides: Sequence[int] = ()) -> Bool[Tensor, "..."]:
        """Where a head has an offset, shaped as `dense`: every place whose bias is not 0."""
        return self.dense(sides) != 0

    @property
    def keep(self) -> int | None:
        """k, the slots that each head has for kept offsets; None where w is dense."""
        return None

    def operand(self, length: int | None = None) -> Tensor | BiasFactors:
        """What AFT-full and AFT-local compute with: w or its factors, whole or of the first `length` positions."""
        return self()[:length, :length]

    def by_distance(self, window: int) -> Float[Tensor, "t s"]:
        """w of causal pairs by target t and distance t - t' = 0 ... window - 1; 0 where there is no such source."""
        w = self.dense()
        target, distance = (torch.arange(size, device=w.device) for size in (len(w), window))
        source = target.unsqueeze(1) - distance
        return w.gather(1, source.clamp(min=0)).masked_fill(source < 0, 0.0)

    def assign(self, w: Float[Tensor, "..."]) -> None:
        """Set the parameters so that the bias gives w. Raises ValueError where it cannot."""
        raise ValueError(f"position bias {type(self).__name__} cannot take a map; use free, reparameterized or single")

    def redraw(self, sides: Sequence[int] = ()) -> None:
        """Draw the places anew, in place, from PyTorch's random state: the control that knows nothing of training.

        Raw biases are as at initialisation. What sets a head's mean and deviation of w (Eq. 8's gamma and beta) stays,
        as w would be 0 without. `sides` are those of the window that frozen places are drawn from.
        """
        raise NotImplementedError
