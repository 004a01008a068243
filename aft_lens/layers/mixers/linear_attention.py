"""Attention with a factored kernel: Linear Transformer (elu + 1) and Performer (FAVOR+ random features)."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from aft_lens.layers.future import exposed, shielded
from aft_lens.layers.hook_point import HookPoint
from aft_lens.layers.memory import MatrixMemory, Memory, Place
from aft_lens.layers.mixer import MIXERS, Mixer, check_heads, check_input

CHUNK = 64
"""Targets a causal block: inside it the weights are written out, before it a `m c` state is carried."""


def linear_attention(
    query: Float[Tensor, "b h t m"],
    key: Float[Tensor, "b h t m"],
    value: Float[Tensor, "b h t c"],
    *,
    causal: bool = False,
) -> Float[Tensor, "b h t c"]:
    """sum_s (q_t . k_s) v_s / sum_s (q_t . k_s) in O(T m c): Eq. 4-6 of Katharopoulos et al. 2020.

    `query` and `key` are feature maps with entries >= 0, one of each target's products above 0.
    """
    value = torch.cat([value, torch.ones_like(value[..., :1])], dim=-1)
    if not causal:
        mixed = query @ (key.transpose(-1, -2) @ value)
    else:
        state = torch.zeros_like(key[:, :, 0, :, None] * value[:, :, 0, None])
        rows = []
        for q, k, v in zip(*(x.split(CHUNK, dim=2) for x in (query, key, value)), strict=True):
            rows.append((q @ k.transpose(-1, -2)).tril() @ v + q @ state)
            state = state + k.transpose(-1, -2) @ v
        mixed = torch.cat(rows, dim=2)
    return mixed[..., :-1] / mixed[..., -1:]


def elu_features(x: Tensor) -> Tensor:
    """elu(x) + 1, the feature map of the Linear Transformer."""
    return F.elu(x) + 1


def orthogonal_features(rows: int, dim: int) -> Float[Tensor, "m c"]:
    """Random directions, orthogonal within blocks of `dim`, with the lengths of Gaussian vectors (FAVOR+)."""
    blocks = [torch.linalg.qr(torch.randn(dim, dim)).Q.T for _ in range(-(-rows // dim))]
    length = torch.randn(rows, dim).norm(dim=1, keepdim=True)
    return torch.cat(blocks)[:rows] * length


def softmax_features(
    x: Float[Tensor, "b h t c"], projection: Float[Tensor, "m c"], *, is_query: bool, causal: bool = False
) -> Float[Tensor, "b h t m"]:
    """Positive random features of the softmax kernel e^(q.k / sqrt c): Lemma 1 of Choromanski et al. 2020.

    A shift that cancels in the ratio keeps them in range: one for each query, one for all keys of a head. Causal keys
    have none, as the largest may come later: their features are at most e^(|w|^2 / 2), w a row of `projection`.
    """
    x = x * x.shape[-1] ** -0.25
    log = x @ projection.T - x.square().sum(-1, keepdim=True) / 2
    if causal and not is_query:
        return torch.exp(log) + 1e-6
    shift = log.amax(-1, keepdim=True) if is_query else log.amax((-1, -2), keepdim=True)
    return torch.exp(log - shift.detach()) + 1e-6


class LinearAttention(nn.Module):
    """Multi-head attention of the Linear Transformer, or of the Performer where `features` is above 0.

    `features` is m, the number of random features a head (c log c in the paper); `redraw` makes new ones. Raises
    ValueError if `dim` is no multiple of `num_heads`.
    """

    projection: Tensor | None

    def __init__(self, dim: int, num_heads: int, *, features: int = 0, causal: bool = False) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads, self.causal = num_heads, causal
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.hook_value = HookPoint()
        self.register_buffer("projection", orthogonal_features(features, dim // num_heads) if features else None)

    def redraw(self) -> None:
        """Draw new random features (Performer); nothing for the Linear Transformer."""
        if self.projection is not None:
            self.projection.copy_(orthogonal_features(*self.projection.shape))

    def forward(self, x: Float[Tensor, "b t d"], grid: Sequence[int]) -> Float[Tensor, "b t d"]:
        """Attend among the t tokens; `grid` is taken for the mixers' common signature and not used."""
        check_input(x, self.proj)
        b, t, d = x.shape
        heads, lost = shielded(self.causal and not self.training, self.qkv(x))
        heads = heads.reshape(b, t, 3, self.num_heads, d // self.num_heads).permute(2, 0, 3, 1, 4)
        query, key, value = heads.unbind(0)
        wide = torch.promote_types(heads.dtype, torch.float32)  # sums over all sources lose the small ones in 16 bits
        with torch.autocast(x.device.type, enabled=False):
            query, key, value = query.to(wide), key.to(wide), self.hook_value(value).to(wide)
            if self.projection is None:
                query, key = elu_features(query), elu_features(key)
            else:
                query = softmax_features(query, self.projection, is_query=True)
                key = softmax_features(key, self.projection, is_query=False, causal=self.causal)
            mixed = linear_attention(query, key, value, causal=self.causal)
        return exposed(self.proj(mixed.transpose(1, 2).reshape(b, t, d).to(heads.dtype)), lost)

    def begin(self, batch: int, length: int) -> Memory:
        """The memory before the first of `length` tokens: O(m d)."""
        channels = self.proj.in_features // self.num_heads
        return MatrixMemory(batch, self.num_heads, channels, channels, self.proj.weight.device)

    def step(self, x: Float[Tensor, "b d"], memory: Memory, place: Place) -> Float[Tensor, "b d"]:
        """Attend from the next token of each sequence; the memory changes in place."""
        assert isinstance(memory, MatrixMemory)
        query, key, value = self.qkv(x).float().reshape(len(x), 3, self.num_heads, -1).unbind(1)
        query, key = elu_features(query), elu_features(key)
        value = torch.cat([value, torch.ones_like(value[..., :1])], dim=-1)
        memory.sums.add_(key.unsqueeze(-1) * value.unsqueeze(-2))
        mixed = (query.unsqueeze(-2) @ memory.sums).squeeze(-2)
        return self.proj((mixed[..., :-1] / mixed[..., -1:]).reshape(x.shape).to(x.dtype))


def performer(dim: int, num_heads: int, *, causal: bool = False) -> LinearAttention:
    """The Performer with c log c random features a head, the paper's and the public implementations' default."""
    head = dim // num_heads
    return LinearAttention(dim, num_heads, features=max(1, int(head * math.log(max(head, 2)))), causal=causal)


MIXERS.add(
    "linear_attention",
    Mixer(
        lambda spec: LinearAttention(spec.dim, spec.num_heads, causal=spec.causal),
        "Linear Transformer",
        causal=True,
        steps=True,
    ),
)
MIXERS.add(
    "performer", Mixer(lambda spec: performer(spec.dim, spec.num_heads, causal=spec.causal), "Performer", causal=True)
)
