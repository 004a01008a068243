"""The definition every other form is held against: float64, slow, obvious.

Eq. 2 is evaluated as written, with all T x T log-weights in memory and a softmax over the sources.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from aft_lens.ops.bias import causal_mask, expand_bias, expand_offsets


def weighted_mean(
    query: Float[Tensor, "*bd t"] | None,
    key: Float[Tensor, "*bk s"],
    value: Float[Tensor, "*bv s"],
    bias: Float[Tensor, "*bw t s"],
) -> Float[Tensor, "*bd t"]:
    """Average the values of every source with weights softmax_s(key_s + bias_ts), then gate (Eq. 2).

    The last dimension is the position, leading ones broadcast; the result is float64. A pair whose key or bias is -inf
    is not read, whatever its key and value are; a target that reads nothing gets 0, an empty sum.
    """
    key, bias = key.double().unsqueeze(-2), bias.double()
    unread = (key == float("-inf")) | (bias == float("-inf"))
    log_weight = (key + bias).masked_fill(unread, float("-inf")).masked_fill(unread.all(-1, keepdim=True), 0.0)
    weight = torch.softmax(log_weight, dim=-1).masked_fill(unread, 0.0)
    mean = (weight * value.double().unsqueeze(-2).masked_fill(unread, 0.0)).sum(-1)
    return mean if query is None else torch.sigmoid(query.double()) * mean


def aft_full(
    query: Float[Tensor, "b t d"] | None,
    key: Float[Tensor, "b s d"],
    value: Float[Tensor, "b s d"],
    position_bias: Float[Tensor, "t s"],
    *,
    causal: bool = False,
    key_mask: Bool[Tensor, "b s"] | None = None,
) -> Float[Tensor, "b t d"]:
    """AFT-full in float64, Eq. 2; shapes as in `aft_lens.ops.aft_full`."""
    bias = position_bias.double()
    if causal:
        bias = bias.masked_fill(causal_mask(len(bias), bias.device), float("-inf"))
    key = key.double().transpose(1, 2)
    if key_mask is not None:
        key = key.masked_fill(~key_mask.unsqueeze(1), float("-inf"))
    gate = None if query is None else query.transpose(1, 2)
    return weighted_mean(gate, key, value.transpose(1, 2), bias).transpose(1, 2)


def aft_local(
    query: Float[Tensor, "b t d"] | None,
    key: Float[Tensor, "b s d"],
    value: Float[Tensor, "b s d"],
    position_bias: Float[Tensor, "t s"],
    window_size: int,
    *,
    causal: bool = False,
    key_mask: Bool[Tensor, "b s"] | None = None,
) -> Float[Tensor, "b t d"]:
    """AFT-local in float64: AFT-full whose bias is 0 where |t - t'| >= window_size (Eq. 4)."""
    position = torch.arange(len(position_bias), device=position_bias.device)
    near = (position.unsqueeze(1) - position).abs() < window_size
    bias = position_bias.masked_fill(~near, 0.0)
    return aft_full(query, key, value, bias, causal=causal, key_mask=key_mask)


def aft_simple(
    query: Float[Tensor, "b t d"] | None,
    key: Float[Tensor, "b s d"],
    value: Float[Tensor, "b s d"],
    *,
    causal: bool = False,
    key_mask: Bool[Tensor, "b s"] | None = None,
) -> Float[Tensor, "b t d"]:
    """AFT-simple in float64: AFT-full without any bias (Eq. 5)."""
    bias = key.new_zeros(key.shape[1], key.shape[1])
    return aft_full(query, key, value, bias, causal=causal, key_mask=key_mask)


def aft_conv(
    query: Float[Tensor, "b h c *grid"] | None,
    key: Float[Tensor, "b h *grid"],
    value: Float[Tensor, "b h c *grid"],
    position_bias: Float[Tensor, "h *window"],
    *,
    causal: bool = False,
    outside: str = "global",
) -> Float[Tensor, "b h c *grid"]:
    """AFT-conv in float64: Eq. 2 with w expanded to T x T, which is Eq. 6 with exp(K) restored."""
    grid = key.shape[2:]
    bias = expand_bias(position_bias.double(), grid, causal=causal, outside=outside)
    gate = None if query is None else query.flatten(3)
    mean = weighted_mean(gate, key.flatten(2).unsqueeze(2), value.flatten(3), bias.unsqueeze(1))
    return mean.reshape(value.shape)


def aft_indexed(
    query: Float[Tensor, "b h c *grid"] | None,
    key: Float[Tensor, "b h *grid"],
    value: Float[Tensor, "b h c *grid"],
    position_bias: Float[Tensor, "h k"],
    offset: Tensor,
) -> Float[Tensor, "b h c *grid"]:
    """AFT-conv whose heads keep k offsets, in float64; shapes as in `aft_lens.ops.aft_indexed`."""
    grid: Sequence[int] = key.shape[2:]
    bias = expand_offsets(position_bias.double(), offset, grid)
    gate = None if query is None else query.flatten(3)
    mean = weighted_mean(gate, key.flatten(2).unsqueeze(2), value.flatten(3), bias.unsqueeze(1))
    return mean.reshape(value.shape)
