"""AFT-full and AFT-local: learned pairwise position biases (Eq. 2 and 4)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from aft_lens.ops.combine import accumulate_dtype, gate
from aft_lens.ops.expand import causal_mask

CHUNK = 64
"""Targets a block: bounds the b x block x s x d log-weights held at once."""


def require_source(key_mask: Bool[Tensor, "b t"], *, causal: bool) -> None:
    """Raise ValueError naming the first target that `key_mask` leaves without a source."""
    readable = key_mask.cumsum(1) > 0 if causal else key_mask.any(1, keepdim=True)
    if not bool(readable.all()):
        batch, target = (~readable).nonzero()[0].tolist()
        raise ValueError(f"key_mask leaves target {target} of batch entry {batch} no source to read")


def aft_full(
    query: Float[Tensor, "b t d"] | None,
    key: Float[Tensor, "b t d"],
    value: Float[Tensor, "b t d"],
    position_bias: Float[Tensor, "t t"],
    *,
    causal: bool = False,
    key_mask: Bool[Tensor, "b t"] | None = None,
) -> Float[Tensor, "b t d"]:
    """Average values over all sources with weights exp(key + position_bias), gated by the query: Eq. 2.

    Each target subtracts its joint maximum of key and bias, so no finite input overflows or underflows to 0/0.
    `key_mask` is True where a source may be read; `query=None` leaves the gate out (Table 12). Accumulates in
    float32 or wider. Raises ValueError on a bias of the wrong shape or a target with no source.
    """
    length = key.shape[1]
    if position_bias.shape != (length, length):
        raise ValueError(f"position_bias must be {length} x {length}, got {tuple(position_bias.shape)}")
    dtype = accumulate_dtype(value.dtype)
    bias = position_bias.to(dtype)
    if causal:
        bias = bias.masked_fill(causal_mask(length, bias.device), float("-inf"))
    score = key.to(dtype).transpose(1, 2)
    if key_mask is not None:
        require_source(key_mask, causal=causal)
        score = score.masked_fill(~key_mask.unsqueeze(1), float("-inf"))
    source = value.to(dtype).transpose(1, 2).unsqueeze(2)
    rows = [(torch.softmax(score.unsqueeze(2) + block, dim=-1) * source).sum(-1) for block in bias.split(CHUNK)]
    return gate(query, torch.cat(rows, dim=-1).transpose(1, 2), value.dtype)


def aft_local(
    query: Float[Tensor, "b t d"] | None,
    key: Float[Tensor, "b t d"],
    value: Float[Tensor, "b t d"],
    position_bias: Float[Tensor, "t t"],
    window_size: int,
    *,
    causal: bool = False,
    key_mask: Bool[Tensor, "b t"] | None = None,
) -> Float[Tensor, "b t d"]:
    """AFT-full whose bias is 0 where |t - t'| >= window_size: Eq. 4. Global connectivity stays.

    Arguments and errors as in `aft_full`; raises ValueError if `window_size` is negative.
    """
    if window_size < 0:
        raise ValueError(f"window_size must be 0 or more, got {window_size}")
    position = torch.arange(position_bias.shape[0], device=position_bias.device)
    near = (position[:, None] - position[None, :]).abs() < window_size
    return aft_full(query, key, value, position_bias * near, causal=causal, key_mask=key_mask)
