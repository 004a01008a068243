"""The parametrizations of w as interchangeable modules: a layer owns one and calls it for w."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from aft_lens.ops import FactorizedBias

NAIVE_STD = 0.1
"""N(0, 10^-2) of Sec. 5.1 read as a variance: standard deviation 0.1."""
STD_EPSILON = 1e-6
"""Added to Eq. 8's std so that a head of equal raw biases gives 0 and not 0/0."""


class Free(nn.Module):
    """w itself is the parameter (the "naive" one of Tables 9 and 10), shape `h *window` or `t s`."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape) * NAIVE_STD)

    def forward(self) -> Float[Tensor, "..."]:
        """w."""
        return self.weight


class Factorized(nn.Module):
    """w = u v^T with u, v of `t rank` (Eq. 7), both N(0, 10^-2)."""

    def __init__(self, length: int, rank: int = 128) -> None:
        super().__init__()
        self.target = nn.Parameter(torch.randn(length, rank) * NAIVE_STD)
        self.source = nn.Parameter(torch.randn(length, rank) * NAIVE_STD)

    def factors(self) -> FactorizedBias:
        """u and v for the operators, which never multiply them out to T x T."""
        return FactorizedBias(self.target, self.source)

    def forward(self) -> Float[Tensor, "t s"]:
        """w, shape `t s`, multiplied out to be looked at."""
        return self.target @ self.source.T


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


class Reparameterized(nn.Module):
    """w = gamma (w' - mean) / std + beta for each head (Eq. 8), with the population std over the window.

    w' starts as N(0, 1), gamma and beta as 0, so w starts at 0 with a direction to grow in.
    """

    def __init__(self, num_heads: int, window: Sequence[int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_heads, *window))
        self.gamma = nn.Parameter(torch.zeros(num_heads))
        self.beta = nn.Parameter(torch.zeros(num_heads))

    def forward(self) -> Float[Tensor, "h *window"]:
        """w, shape `h *window`."""
        flat = self.weight.flatten(1)
        centred = flat - flat.mean(1, keepdim=True)
        std = centred.square().mean(1, keepdim=True).sqrt() + STD_EPSILON
        w = self.gamma.unsqueeze(1) * centred / std + self.beta.unsqueeze(1)
        return w.reshape(self.weight.shape)


def one_position(w: Float[Tensor, "h *window"]) -> Float[Tensor, "h *window"]:
    """w at each head's largest value, 0 elsewhere: a hard sample of Eq. 10."""
    flat = w.flatten(1)
    return w * F.one_hot(flat.argmax(1), flat.shape[1]).to(w.dtype).reshape(w.shape)


class SinglePosition(nn.Module):
    """w times a Gumbel-softmax sample in training and its hard one-hot in evaluation (Eq. 10).

    `temperature` is tau (0.5 in the paper); a schedule may set it between steps, which compiled code follows without
    compiling again. The inner bias is Eq. 8's. With `straight_through` the forward pass takes the sample's one-hot
    and the gradient the soft sample's (Jang et al., 2017), so training already computes with one position. Raises
    ValueError if `temperature` is not above 0.
    """

    def __init__(
        self, num_heads: int, window: Sequence[int], temperature: float = 0.5, *, straight_through: bool = False
    ) -> None:
        super().__init__()
        self.inner = Reparameterized(num_heads, window)
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


class Indexed(nn.Module):
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

    def window(self, sides: Sequence[int]) -> Float[Tensor, "h *window"]:
        """w laid out on a window of the given odd sides, 0 where nothing is kept."""
        w = self.weight.new_zeros(self.weight.shape[0], *sides)
        head, slot = self.kept.nonzero(as_tuple=True)
        radius = torch.tensor([side // 2 for side in sides], device=self.offset.device)
        place = (self.offset[head, slot] + radius).unbind(-1)
        return w.index_put((head, *place), self.weight[head, slot])

    def forward(self) -> Float[Tensor, "h k"]:
        """w at the kept offsets and 0 in the spare slots, shape `h k`."""
        return torch.where(self.kept, self.weight, 0.0)


def conv_bias(
    kind: str, num_heads: int, window: Sequence[int], temperature: float = 0.5, *, straight_through: bool = False
) -> nn.Module:
    """Make AFT-conv's position bias: "free", "reparameterized" (the paper's default) or "single"."""
    if kind == "free":
        return Free(num_heads, *window)
    if kind == "reparameterized":
        return Reparameterized(num_heads, window)
    if kind == "single":
        return SinglePosition(num_heads, window, temperature, straight_through=straight_through)
    raise ValueError(f'position_bias must be "free", "reparameterized" or "single" for AFT-conv, got {kind!r}')


def pair_bias(kind: str, length: int, rank: int = 128, window_size: int | None = None) -> nn.Module:
    """Make AFT-full's and, with `window_size`, AFT-local's position bias: "free" or "factorized" (the default)."""
    if kind == "free":
        return Free(length, length)
    if kind == "factorized":
        return Factorized(length, rank) if not window_size else LocalFactorized(length, window_size, rank)
    raise ValueError(f'position_bias must be "free" or "factorized" for AFT-full and AFT-local, got {kind!r}')
