"""w by offset on a window: reparameterized (Eq. 8), and one position a head (Eq. 10)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from aft_lens.layers.position_bias.base import PositionBias, drawn

START = 0.05
"""Standard deviation that w' starts with: small enough to be learned (`analyses/results/start_sweep.json`)."""
STD_EPSILON = 1e-6
"""Added to Eq. 8's std so that a head of equal raw biases gives 0 and not 0/0."""


class Reparameterized(PositionBias):
    """w = gamma (w' - mean) / std + beta for each head (Eq. 8), with the population std over the window.

    gamma and beta start as 0, so w starts at 0, and w' as N(0, start^2): the direction that w grows in. The equation
    is blind to the scale of w', AdamW is not: it moves every entry by about the learning rate a step, which turns a
    large w' hardly at all.
    """

    def __init__(self, num_heads: int, window: Sequence[int], start: float = START) -> None:
        super().__init__()
        if start <= 0:
            raise ValueError(f"bias_start must be above 0, got {start}")
        self.start = start
        self.weight = nn.Parameter(drawn((num_heads, *window), start))
        self.gamma = nn.Parameter(torch.zeros(num_heads))
        self.beta = nn.Parameter(torch.zeros(num_heads))

    def forward(self) -> Float[Tensor, "h *window"]:
        """w, shape `h *window`."""
        flat = self.weight.flatten(1)
        centred = flat - flat.mean(1, keepdim=True)
        std = centred.square().mean(1, keepdim=True).sqrt() + STD_EPSILON
        w = self.gamma.unsqueeze(1) * centred / std + self.beta.unsqueeze(1)
        return w.reshape(self.weight.shape)

    @torch.no_grad()
    def assign(self, w: Float[Tensor, "h *window"]) -> None:
        """Solve Eq. 8 exactly: w' of mean 0 and deviation 1, gamma = std(w), beta = mean(w).

        A head whose w is flat keeps its w' and gets gamma 0: the direction that it can grow in.
        """
        flat = w.flatten(1)
        mean, std = flat.mean(1), flat.std(1, correction=0)
        curved = std > STD_EPSILON
        raw = (flat - mean.unsqueeze(1)) / std.where(curved, torch.ones_like(std)).unsqueeze(1)
        self.weight[curved] = raw.reshape(w.shape)[curved].to(self.weight)
        self.gamma.copy_(std.where(curved, torch.zeros_like(std)) * (1 + STD_EPSILON))
        self.beta.copy_(mean)

    def redraw(self, sides: Sequence[int] = ()) -> None:
        """Draw w' as at initialisation; gamma and beta stay."""
        nn.init.normal_(self.weight, std=self.start)

    def direction(self) -> Float[Tensor, "h *window"]:
        """w' itself: w is 0 at the start, whatever its direction."""
        return self.weight


class Derived(PositionBias):
    """A bias made of Eq. 8's w, its `inner` one: what says where it is large is the inner one's."""

    def __init__(self, num_heads: int, window: Sequence[int], start: float = START) -> None:
        super().__init__()
        self.inner = Reparameterized(num_heads, window, start)

    def logits(self) -> Float[Tensor, "h *window"]:
        """The inner w, which places are chosen by."""
        return self.inner()

    def direction(self) -> Float[Tensor, "h *window"]:
        """The inner w'."""
        return self.inner.direction()

    def assign(self, w: Float[Tensor, "h *window"]) -> None:
        """Set the inner w."""
        self.inner.assign(w)

    def redraw(self, sides: Sequence[int] = ()) -> None:
        """Draw the inner w' as at initialisation."""
        self.inner.redraw(sides)


def one_position(w: Float[Tensor, "h *window"]) -> Float[Tensor, "h *window"]:
    """w at each head's largest value, 0 elsewhere: a hard sample of Eq. 10."""
    flat = w.flatten(1)
    return w * F.one_hot(flat.argmax(1), flat.shape[1]).to(w.dtype).reshape(w.shape)


class SinglePosition(Derived):
    """w times a Gumbel-softmax sample in training and its hard one-hot in evaluation (Eq. 10).

    `temperature` is tau (0.5 in the paper); a schedule may set it between steps, which compiled code follows without
    compiling again. The inner bias is Eq. 8's. With `straight_through` the forward pass takes the sample's one-hot
    and the gradient the soft sample's (Jang et al., 2017), so training already computes with one position. Raises
    ValueError if `temperature` is not above 0.
    """

    samples = True

    def __init__(
        self, num_heads: int, window: Sequence[int], temperature: float = 0.5, *, straight_through: bool = False,
        start: float = START,
    ) -> None:  # fmt: skip
        super().__init__(num_heads, window, start)
        # Compiled code takes a tensor as input but a float as a constant: each new one would compile again. No buffer,
        # which an average of weights would average.
        self._tau = torch.empty((), dtype=torch.float32, device="cpu")
        self.temperature = temperature
        self.straight_through = straight_through

    @property
    def temperature(self) -> float:
        """tau, above 0."""
        return self._temperature

    @temperature.setter
    def temperature(self, temperature: float) -> None:
        if temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        self._temperature = float(temperature)
        self._tau.fill_(temperature)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "SinglePosition":
        """Take tau along to another device, not to another dtype."""
        super()._apply(fn, recurse)
        self._tau = torch.full_like(self._tau, self._temperature, device=fn(self._tau).device)
        return self

    def forward(self) -> Float[Tensor, "h *window"]:
        """w times the sample, shape `h *window`."""
        w = self.inner()
        logits = w.flatten(1)
        if self.training:
            tau: Any = self._tau  # annotated as a float; it only divides
            return w * F.gumbel_softmax(logits, tau=tau, hard=self.straight_through, dim=1).reshape(w.shape)
        return one_position(w)

    def few(self) -> tuple[Float[Tensor, "h 1"], Int[Tensor, "h 1 n"]] | None:
        """The one position of each head in evaluation; None in training, whose samples are dense."""
        if self.training:
            return None
        w = self.inner()
        flat = w.flatten(1)
        place = flat.argmax(1, keepdim=True)
        rest, offset = place, list[Tensor]()
        for side in reversed(w.shape[1:]):  # by numbers alone: a captured graph cannot take a tensor from the host
            offset.append(rest % side - side // 2)
            rest = rest // side
        return flat.gather(1, place), torch.stack(offset[::-1], -1)
