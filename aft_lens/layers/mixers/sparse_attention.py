"""Softmax attention under a fixed sparse mask: Image Transformer's local2d and the Sparse Transformer's strided."""

import math
from collections.abc import Sequence
from itertools import product

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from aft_lens.layers.future import exposed, shielded
from aft_lens.layers.hook_point import HookPoint
from aft_lens.layers.mixer import MIXERS, Mixer, MixerSpec, check_heads, check_input

PATTERNS = ("local2d", "strided")


def local2d_mask(grid: Sequence[int], block: int, margin: int, *, causal: bool = False) -> Bool[Tensor, "t s"]:
    """True where a target may read a source: Image Transformer's 2-D local attention (Parmar et al. 2018, 4.2.2).

    The grid is cut into query blocks of `block` x `block`; every position of one reads the same memory block, the
    query block and `margin` positions around it. `causal` leaves out sources after the target in raster order.
    """
    position = torch.tensor(list(product(*(range(size) for size in grid))))
    start = position // block * block
    low, high = (start - margin).unsqueeze(1), (start + block + margin).unsqueeze(1)
    mask = ((position >= low) & (position < high)).all(-1)
    return mask.tril() if causal else mask


def strided_mask(length: int, stride: int, *, causal: bool = False) -> Bool[Tensor, "t s"]:
    """True where a target may read a source: the Sparse Transformer's strided pattern (Child et al. 2019, 4.3).

    Both of its heads merged: the `stride` - 1 nearest positions on either side, and every stride-th position.
    """
    position = torch.arange(length)
    distance = (position.unsqueeze(1) - position).abs()
    mask = (distance < stride) | (distance % stride == 0)
    return mask.tril() if causal else mask


def with_class_token(mask: Bool[Tensor, "t s"]) -> Bool[Tensor, "t1 s1"]:
    """Put a first token that reads and is read by all in front of a mask."""
    return F.pad(mask, (1, 0, 1, 0), value=True)


class SparseAttention(nn.Module):
    """Multi-head softmax attention (Eq. 1) under a boolean mask `t s`, on the fused path.

    `causal` says that the mask leaves out every source after its target. Raises ValueError if `dim` is no multiple of
    `num_heads` or a target may read nothing.
    """

    mask: Tensor

    def __init__(self, dim: int, num_heads: int, mask: Bool[Tensor, "t s"], *, causal: bool = False) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        if not mask.is_meta and not bool(mask.any(1).all()):
            raise ValueError(f"mask leaves target {int((~mask.any(1)).nonzero()[0])} no source to read")
        self.num_heads, self.causal = num_heads, causal
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.hook_value = HookPoint()
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Float[Tensor, "b t d"], grid: Sequence[int]) -> Float[Tensor, "b t d"]:
        """Attend among the t tokens; the mask was made for one grid (or the first t of a causal one's positions)."""
        check_input(x, self.proj)
        b, t, d = x.shape
        heads, lost = shielded(self.causal and not self.training, self.qkv(x))
        heads = heads.reshape(b, t, 3, self.num_heads, d // self.num_heads).permute(2, 0, 3, 1, 4)
        query, key, value = heads.unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, self.hook_value(value), attn_mask=self.mask[:t, :t])
        return exposed(self.proj(mixed.transpose(1, 2).reshape(b, t, d)), lost)


def sparse_attention(
    pattern: str, dim: int, num_heads: int, grid: Sequence[int], window_size: int, *, class_token: bool = True,
    causal: bool = False,
) -> SparseAttention:  # fmt: skip
    """Make the mixer of a pattern for a grid.

    "local2d": memory blocks of `window_size` on a side around query blocks of a third of that. "strided": the
    stride is the grid's row, so that a target reads its surroundings and its column; on a line it is `window_size`.
    `causal` leaves out sources after the target. Raises ValueError on another pattern.
    """
    if pattern == "local2d":
        block = max(1, window_size // 3)
        mask = local2d_mask(grid, block, (window_size - block) // 2, causal=causal)
    elif pattern == "strided":
        mask = strided_mask(math.prod(grid), grid[1] if len(grid) > 1 else window_size, causal=causal)
    else:
        raise ValueError(f"pattern must be one of {PATTERNS}, got {pattern!r}")
    return SparseAttention(dim, num_heads, with_class_token(mask) if class_token else mask, causal=causal)


def _local(spec: MixerSpec) -> SparseAttention:
    """`window_size` is the side of the memory block, in tokens."""
    return _sparse("local2d", spec)


def _strided(spec: MixerSpec) -> SparseAttention:
    """`window_size` is the stride on a line, in tokens."""
    return _sparse("strided", spec)


def _sparse(pattern: str, spec: MixerSpec) -> SparseAttention:
    return sparse_attention(
        pattern, spec.dim, spec.num_heads, spec.grid, spec.window_size, class_token=spec.prefix > 0, causal=spec.causal
    )


MIXERS.add("local_attention", Mixer(_local, "local attention", causal=True))
MIXERS.add("strided_attention", Mixer(_strided, "strided attention", causal=True))
