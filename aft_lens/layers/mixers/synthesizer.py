"""Dense Synthesizer: attention weights predicted from each token alone."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aft_lens.layers.future import exposed, shielded
from aft_lens.layers.hook_point import HookPoint
from aft_lens.layers.memory import CacheMemory, Memory, Place
from aft_lens.layers.mixer import MIXERS, Mixer, MixerSpec, check_heads, check_input
from aft_lens.layers.mixers.attention import without_future


class Synthesizer(nn.Module):
    """softmax(W2 relu(W1 x_t)) over the sources instead of query-key products: Eq. 4-6 of Tay et al. 2020.

    Each head has its own W1 and W2; the length is fixed. `causal` reads sources up to the target alone. Raises
    ValueError if `dim` is no multiple of `num_heads` or an input is longer than `length`.
    """

    def __init__(self, dim: int, num_heads: int, length: int, *, causal: bool = False) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads, self.length, self.causal = num_heads, length, causal
        self.hidden = nn.Linear(dim, dim)
        self.weight = nn.Parameter(torch.randn(num_heads, dim // num_heads, length) * 0.02)
        self.bias = nn.Parameter(torch.zeros(num_heads, 1, length))
        self.value = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)
        self.hook_value = HookPoint()
        self.hook_attention = HookPoint()

    def forward(self, x: Float[Tensor, "b t d"], grid: Sequence[int]) -> Float[Tensor, "b t d"]:
        """Mix the t tokens; `grid` is taken for the mixers' common signature and not used."""
        check_input(x, self.proj)
        b, t, d = x.shape
        if t > self.length:
            raise ValueError(f"input must have at most {self.length} tokens, got {t}")
        hidden = torch.relu(self.hidden(x)).reshape(b, t, self.num_heads, -1).transpose(1, 2)
        score = hidden @ self.weight[..., :t] + self.bias[..., :t]
        if self.causal:
            score = without_future(score)
        values, lost = shielded(self.causal and not self.training, self.value(x))
        value = self.hook_value(values.reshape(b, t, self.num_heads, -1).transpose(1, 2))
        mixed = self.hook_attention(score.softmax(-1)) @ value
        return exposed(self.proj(mixed.transpose(1, 2).reshape(b, t, d)), lost)

    def begin(self, batch: int, length: int) -> Memory:
        """The memory before the first of `length` tokens: the values of all."""
        shape = (batch, self.num_heads, length, self.proj.in_features // self.num_heads)
        return CacheMemory(value=self.proj.weight.new_zeros(shape))

    def step(self, x: Float[Tensor, "b d"], memory: Memory, place: Place) -> Float[Tensor, "b d"]:
        """Mix the next token of each sequence; the memory changes in place."""
        assert isinstance(memory, CacheMemory)
        hidden = torch.relu(self.hidden(x)).reshape(len(x), self.num_heads, 1, -1)
        score = hidden @ self.weight[..., : place.reach] + self.bias[..., : place.reach]
        (values,) = memory.write(place, value=self.value(x).reshape(len(x), self.num_heads, -1))
        return self.proj((score.softmax(-1) @ values).reshape(x.shape))


def _build(spec: MixerSpec) -> Synthesizer:
    return Synthesizer(spec.dim, spec.num_heads, spec.length, causal=spec.causal)


MIXERS.add("synthesizer", Mixer(_build, "Synthesizer", causal=True, steps=True))
