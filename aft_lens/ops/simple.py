"""AFT-simple: no position bias, one softmax over the sources (Eq. 5)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from aft_lens.ops.combine import accumulate_dtype, gate
from aft_lens.ops.full import aft_full, require_source


def aft_simple(
    query: Float[Tensor, "b t d"] | None,
    key: Float[Tensor, "b t d"],
    value: Float[Tensor, "b t d"],
    *,
    causal: bool = False,
    key_mask: Bool[Tensor, "b t"] | None = None,
) -> Float[Tensor, "b t d"]:
    """Gate one softmax-weighted mean of the values with the query: Eq. 5.

    `key_mask` is True where a source may be read; `query=None` leaves the gate out (Table 12). Accumulates in
    float32 or wider and returns the value's dtype. Raises ValueError where a target has no source left.
    """
    if causal:
        bias = key.new_zeros(key.shape[1], key.shape[1])
        return aft_full(query, key, value, bias, causal=True, key_mask=key_mask)
    dtype = accumulate_dtype(value.dtype)
    score = key.to(dtype)
    if key_mask is not None:
        require_source(key_mask, causal=False)
        score = score.masked_fill(~key_mask.unsqueeze(-1), float("-inf"))
    mean = (torch.softmax(score, dim=1) * value.to(dtype)).sum(1, keepdim=True)
    return gate(query, mean.expand(value.shape), value.dtype)
