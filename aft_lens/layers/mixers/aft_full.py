"""AFT-full, AFT-local and AFT-simple layers: position biases between every two positions, or none."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from aft_lens.layers.hook_point import HookPoint
from aft_lens.layers.memory import Memory, Place, SumMemory, WindowMemory
from aft_lens.layers.mixer import MIXERS, Mixer, MixerSpec, check_input
from aft_lens.layers.position_bias import PositionBias, pair_bias
from aft_lens.ops import BiasFactors, aft_full, aft_local, aft_simple

DEFAULT_BIAS = "factorized"
"""Parametrization of w if none is named: Eq. 7, the paper's."""


class PairwiseAFT(nn.Module):
    """AFT over tokens whose places are numbered: projections around an operator, a drop-in for multi-head attention.

    `position_bias` is w by (target, source), None where the operator has none. `causal` reads sources up to the target
    alone, and takes sequences shorter than the position bias.
    """

    def __init__(
        self, dim: int, position_bias: PositionBias | None, *, use_query: bool = True, causal: bool = False
    ) -> None:
        super().__init__()
        self.position_bias = position_bias
        self.causal = causal
        self.query = nn.Linear(dim, dim) if use_query else None
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)
        self.hook_query = HookPoint()
        self.hook_key = HookPoint()
        self.hook_value = HookPoint()

    def forward(self, x: Float[Tensor, "b t d"], grid: Sequence[int]) -> Float[Tensor, "b t d"]:
        """Mix the t tokens; `grid` is taken for the mixers' common signature and not used."""
        check_input(x, self.proj)
        query = None if self.query is None else self.hook_query(self.query(x))
        return self.proj(self.mix(query, self.hook_key(self.key(x)), self.hook_value(self.value(x))))

    def begin(self, batch: int, length: int) -> Memory:
        """The memory before the first of `length` tokens."""
        return self._joined(SumMemory(batch, self.key.out_features, self.key.weight.device))

    def step(self, x: Float[Tensor, "b d"], memory: Memory, place: Place) -> Float[Tensor, "b d"]:
        """Mix the next token of each sequence; the memory changes in place."""
        assert isinstance(memory, SumMemory | WindowMemory)
        assert memory.joint is not None
        *query, key, value = F.linear(x, *memory.joint).split(self.key.out_features, -1)
        return self.proj(memory.read(query[0] if query else None, key, value, place))

    def _joined(self, memory: Memory) -> Memory:
        """The memory with query, key and value in one projection."""
        parts = [part for part in (self.query, self.key, self.value) if part is not None]
        weight, bias = torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts])
        memory.joint = weight.detach(), bias.detach()
        return memory

    @abstractmethod
    def mix(
        self, query: Float[Tensor, "b t d"] | None, key: Float[Tensor, "b t d"], value: Float[Tensor, "b t d"]
    ) -> Float[Tensor, "b t d"]:
        """The operator."""

    def _operand(self, tokens: int) -> Tensor | BiasFactors:
        """w as the operator takes it: all of it, or of a causal layer that of the first tokens."""
        assert self.position_bias is not None
        return self.position_bias.operand(tokens if self.causal else None)


class AFTFull(PairwiseAFT):
    """AFT-full (Eq. 2): a bias for every two positions."""

    def begin(self, batch: int, length: int) -> Memory:
        """The memory before the first of `length` tokens: O(t d), as every distance has its bias."""
        assert self.position_bias is not None
        bias = self.position_bias.by_distance(length).detach().float()
        return self._joined(WindowMemory(batch, self.key.out_features, bias))

    def mix(self, query: Tensor | None, key: Tensor, value: Tensor) -> Tensor:
        """Eq. 2."""
        return aft_full(query, key, value, self._operand(key.shape[1]), causal=self.causal)


class AFTLocal(PairwiseAFT):
    """AFT-local (Eq. 4): AFT-full whose bias is 0 where |t - t'| >= `window_size`."""

    def __init__(
        self, dim: int, position_bias: PositionBias, window_size: int, *, use_query: bool = True, causal: bool = False
    ) -> None:
        super().__init__(dim, position_bias, use_query=use_query, causal=causal)
        self.window_size = window_size

    def begin(self, batch: int, length: int) -> Memory:
        """The memory before the first of `length` tokens: O(s d)."""
        assert self.position_bias is not None
        bias = self.position_bias.by_distance(min(self.window_size, length)).detach().float()
        return self._joined(WindowMemory(batch, self.key.out_features, bias))

    def mix(self, query: Tensor | None, key: Tensor, value: Tensor) -> Tensor:
        """Eq. 4."""
        return aft_local(query, key, value, self._operand(key.shape[1]), self.window_size, causal=self.causal)


class AFTSimple(PairwiseAFT):
    """AFT-simple (Eq. 5): no position bias."""

    def __init__(self, dim: int, *, use_query: bool = True, causal: bool = False) -> None:
        super().__init__(dim, None, use_query=use_query, causal=causal)

    def mix(self, query: Tensor | None, key: Tensor, value: Tensor) -> Tensor:
        """Eq. 5."""
        return aft_simple(query, key, value, causal=self.causal)


def _full(spec: MixerSpec) -> AFTFull:
    bias = pair_bias(spec.position_bias or DEFAULT_BIAS, spec.length, spec.bias_rank)
    return AFTFull(spec.dim, bias, use_query=spec.use_query, causal=spec.causal)


def _local(spec: MixerSpec) -> AFTLocal:
    """`window_size` is s of Eq. 4, in tokens."""
    bias = pair_bias(spec.position_bias or DEFAULT_BIAS, spec.length, spec.bias_rank, spec.window_size)
    return AFTLocal(spec.dim, bias, spec.window_size, use_query=spec.use_query, causal=spec.causal)


def _simple(spec: MixerSpec) -> AFTSimple:
    return AFTSimple(spec.dim, use_query=spec.use_query, causal=spec.causal)


# The host asks at every step whether denominators were lost, which no graph can hold.
MIXERS.add(
    "aft_full",
    Mixer(
        _full, "AFT-full", causal=True, steps=True, weights="pair", position_bias=DEFAULT_BIAS,
        fits_cuda_graphs=lambda spec: False,
    ),
)  # fmt: skip
MIXERS.add(
    "aft_local",
    Mixer(
        _local, "AFT-local", causal=True, steps=True, weights="pair", position_bias=DEFAULT_BIAS,
        fits_cuda_graphs=lambda spec: False,
    ),
)  # fmt: skip
MIXERS.add("aft_simple", Mixer(_simple, "AFT-simple", causal=True, steps=True))
