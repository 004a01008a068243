"""What a user could write in AFT-conv's place from PyTorch's own parts, and attention by a backend of one's choice.

AFT-conv is attention with a query of 1: the key is its one logit a source, w the mask, e^(key + w) over their sum the
weights (Eq. 6).
"""

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import flex_attention

SMALLEST = 16
"""Channels of a head that attention's kernels ask for; they take powers of two."""
MASKED = [SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""Backends that take a mask, quickest first; the first has no gradient of one."""


def pinned(backend: SDPBackend) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Attention by one backend."""

    def run(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(query, key, value)

    return run


def backend_of(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, *, causal: bool = False) -> str:
    """Name of the backend that PyTorch picks for attention, e.g. cudnn_attention."""
    choose: Any = torch._fused_sdp_choice
    return str(SDPBackend(choose(query, key, value, mask, 0.0, causal)).name).lower()


def masked(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """AFT-conv of `b h c y x` by masked attention."""
    with sdpa_kernel(MASKED, set_priority=True):
        mixed = F.scaled_dot_product_attention(*_as_attention(key, value), attn_mask=_mask(value, bias), scale=1.0)
    return _gated(query, mixed)


def masked_backend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> str:
    """Name of the backend of `masked`."""
    with sdpa_kernel(MASKED, set_priority=True):
        return backend_of(*_as_attention(key, value), _mask(value, bias))


def flex(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """AFT-conv of `b h c y x` by FlexAttention, which adds w by a function of target and source."""
    columns, side = value.shape[4], bias.shape[1]

    def with_bias(score: Tensor, batch: Tensor, head: Tensor, target: Tensor, source: Tensor) -> Tensor:
        down = source // columns - target // columns + side // 2
        right = source % columns - target % columns + side // 2
        inside = (down >= 0) & (down < side) & (right >= 0) & (right < side)
        place = down.clamp(0, side - 1), right.clamp(0, side - 1)
        return score + torch.where(inside, bias[head, place[0], place[1]], 0.0)

    return _gated(query, _flex()(*_as_attention(key, value), score_mod=with_bias, scale=1.0))


def depthwise(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """AFT-conv of `b h c y x` as Eq. 6 has it: one depth-wise convolution of exp(w) - 1, a head's for each channel.

    Quickest where the value's memory runs `b y x h c`, channels last.
    """
    b, h, c, *grid = value.shape
    weight = torch.exp(key - key.amax((2, 3), keepdim=True)).unsqueeze(2)
    kernel = torch.expm1(bias).to(value.dtype).unsqueeze(1)
    weighted = weight * value
    num = F.conv2d(weighted.reshape(b, h * c, *grid), kernel.repeat_interleave(c, 0), padding=bias.shape[1] // 2,
                   groups=h * c).reshape(value.shape)  # fmt: skip
    den = F.conv2d(weight.squeeze(2), kernel, padding=bias.shape[1] // 2, groups=h).unsqueeze(2)
    return torch.sigmoid(query) * (num + weighted.sum((3, 4), keepdim=True)) / (den + weight.sum((3, 4), keepdim=True))


def _mask(value: Tensor, bias: Tensor) -> Tensor:
    """w for every pair, `1 h t t`, 0 beyond the window."""
    rows, columns = value.shape[3:]
    known = F.pad(bias.to(value.dtype).flatten(1), (0, 1))
    return known[:, _places((rows, columns), bias.shape[1], value.device)].unsqueeze(0)


@lru_cache(maxsize=1)
def _places(grid: tuple[int, int], side: int, device: torch.device) -> Tensor:
    """The bias of each pair by its number in the window, `t t`; behind the last one beyond the window."""
    token = torch.arange(grid[0] * grid[1], device=device)
    down, right = (each - each.unsqueeze(1) + side // 2 for each in (token // grid[1], token % grid[1]))
    inside = (down >= 0) & (down < side) & (right >= 0) & (right < side)
    return torch.where(inside, down * side + right, side**2)


@cache
def _flex() -> Callable[..., Tensor]:
    """FlexAttention, compiled: as it stands it would write T x T weights."""
    return torch.compile(flex_attention, dynamic=False)


def _as_attention(key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries of 1, keys with the logit in their first channel, and values, `b h t` by a width that kernels take."""
    b, h, c, *_ = value.shape
    keys = F.pad(key.flatten(2).unsqueeze(-1), (0, SMALLEST - 1))
    width = max(SMALLEST, 1 << (c - 1).bit_length())
    values = F.pad(value.flatten(3).transpose(2, 3), (0, width - c))
    return _ones((b, h, keys.shape[2], SMALLEST), value.dtype, value.device), keys, values


@lru_cache(maxsize=1)
def _ones(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Queries, which nobody would make anew at every call."""
    return torch.ones(shape, dtype=dtype, device=device)


def _gated(query: Tensor, mixed: Tensor) -> Tensor:
    """The gate over what attention gave, in the query's shape."""
    return torch.sigmoid(query) * mixed[..., : query.shape[2]].transpose(2, 3).reshape(query.shape)
