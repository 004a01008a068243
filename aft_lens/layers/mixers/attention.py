"""Softmax attention (Eq. 1): fused for training, unfused where the weights are to be read."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from aft_lens.layers.hook_point import HookPoint
from aft_lens.layers.mixer import MIXERS, Mixer, MixerSpec


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
        if dim % num_heads:
            raise ValueError(f"embed_dim must be a multiple of num_heads, got {dim} and {num_heads}")
        self.num_heads, self.causal = num_heads, causal
        self.fused = True
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.hook_value = HookPoint()
        self.hook_attention = HookPoint()

    def forward(self, x: Float[Tensor, "b t d"], grid: Sequence[int]) -> Float[Tensor, "b t d"]:
        """Attend among the t tokens; `grid` is taken for the mixers' common signature and not used."""
        b, t, d = x.shape
        heads = self.qkv(x).reshape(b, t, 3, self.num_heads, d // self.num_heads).permute(2, 0, 3, 1, 4)
        query, key, value = heads.unbind(0)
        value = self.hook_value(value)
        if self.fused:
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        else:
            score = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
            if self.causal:
                score = without_future(score)
            mixed = self.hook_attention(score.softmax(-1)) @ value
        return self.proj(mixed.transpose(1, 2).reshape(b, t, d))


def _build(spec: MixerSpec) -> Attention:
    return Attention(spec.dim, spec.num_heads, causal=spec.causal)


MIXERS.add("attention", Mixer(_build, "ViT", any_size=True, causal=True, weights="attention"))
