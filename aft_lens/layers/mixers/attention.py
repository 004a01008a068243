"""Softmax attention (Eq. 1): fused for training, unfused where the weights are to be read."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from aft_lens.layers.future import exposed, shielded
from aft_lens.layers.hook_point import HookPoint
from aft_lens.layers.memory import CacheMemory, Memory, Place
from aft_lens.layers.mixer import MIXERS, Mixer, MixerSpec, check_heads, check_input


def without_future(score: Float[Tensor, "b h t s"]) -> Float[Tensor, "b h t s"]:
    """Scores with -inf where the source comes after the target."""
    future = torch.ones(score.shape[-2:], dtype=torch.bool, device=score.device).triu(1)
    return score.masked_fill(future, float("-inf"))


class Attention(nn.Module):
    """Multi-head softmax attention, with one projection for query, key and value as in ViT.

    `causal` reads sources up to the target alone. With `fused` (the default) scaled_dot_product_attention runs and
    `hook_attention` never fires; set `fused` to False to have the weights, shape `b h t s`, pass through it.
    """

    def __init__(self, dim: int, num_heads: int, *, causal: bool = False) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads, self.causal = num_heads, causal
        self.fused = True
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.hook_value = HookPoint()
        self.hook_attention = HookPoint()

    def forward(self, x: Float[Tensor, "b t d"], grid: Sequence[int]) -> Float[Tensor, "b t d"]:
        """Attend among the t tokens; `grid` is taken for the mixers' common signature and not used."""
        check_input(x, self.proj)
        b, t, d = x.shape
        heads, lost = shielded(self.causal and not self.training, self.qkv(x))
        heads = heads.reshape(b, t, 3, self.num_heads, d // self.num_heads).permute(2, 0, 3, 1, 4)
        query, key, value = heads.unbind(0)
        value = self.hook_value(value)
        if self.fused:
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        else:
            score = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
            if self.causal:
                score = without_future(score)
            mixed = self.hook_attention(score.softmax(-1)) @ value
        return exposed(self.proj(mixed.transpose(1, 2).reshape(b, t, d)), lost)

    def begin(self, batch: int, length: int) -> Memory:
        """The memory before the first of `length` tokens: keys and values of all."""
        shape = (batch, self.num_heads, length, self.proj.in_features // self.num_heads)
        key, value = (self.proj.weight.new_zeros(shape) for _ in range(2))
        return CacheMemory(key=key, value=value)

    def step(self, x: Float[Tensor, "b d"], memory: Memory, place: Place) -> Float[Tensor, "b d"]:
        """Attend from the next token of each sequence; the memory changes in place."""
        assert isinstance(memory, CacheMemory)
        query, key, value = self.qkv(x).reshape(len(x), 3, self.num_heads, -1).unbind(1)
        keys, values = memory.write(place, key=key, value=value)
        mixed = F.scaled_dot_product_attention(query.unsqueeze(2), keys, values)
        return self.proj(mixed.reshape(x.shape))


def _build(spec: MixerSpec) -> Attention:
    return Attention(spec.dim, spec.num_heads, causal=spec.causal)


MIXERS.add(
    "attention", Mixer(_build, "ViT", any_size=True, causal=True, steps=True, any_prefix=True, weights="attention")
)
