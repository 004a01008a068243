"""Dense Synthesizer: attention weights predicted from each token alone."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aft_lens.layers.hook_point import HookPoint
from aft_lens.layers.mixer import MIXERS, Mixer, MixerSpec
from aft_lens.layers.mixers.attention import without_future


class Synthesizer(nn.Module):
    """softmax(W2 relu(W1 x_t)) over the sources instead of query-key products: Eq. 4-6 of Tay et al. 2020.

    Each head has its own W1 and W2; the length is fixed. `causal` reads sources up to the target alone. Raises
    ValueError if `dim` is no multiple of `num_heads` or an input is longer than `length`.
    """

    def __init__(self, dim: int, num_heads: int, length: int, *, causal: bool = False) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"embed_dim must be a multiple of num_heads, got {dim} and {num_heads}")
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
        b, t, d = x.shape
        if t > self.length:
            raise ValueError(f"input must have at most {self.length} tokens, got {t}")
        hidden = torch.relu(self.hidden(x)).reshape(b, t, self.num_heads, -1).transpose(1, 2)
        score = hidden @ self.weight[..., :t] + self.bias[..., :t]
        if self.causal:
            score = without_future(score)
        value = self.hook_value(self.value(x).reshape(b, t, self.num_heads, -1).transpose(1, 2))
        mixed = self.hook_attention(score.softmax(-1)) @ value
        return self.proj(mixed.transpose(1, 2).reshape(b, t, d))


def _build(spec: MixerSpec) -> Synthesizer:
    return Synthesizer(spec.dim, spec.num_heads, spec.length, causal=spec.causal)


MIXERS.add("synthesizer", Mixer(_build, "Synthesizer", causal=True))
