"""AFT-simple: no position bias, one softmax over the sources (Eq. 5)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from aft_lens.ops.combine import accumulate_dtype, first_key, gate


def require_source(key_mask: Bool[Tensor, "b t"], *, causal: bool) -> None:
    """Raise ValueError naming the first target that `key_mask` leaves without a source."""
    readable = key_mask.cumsum(1) > 0 if causal else key_mask.any(1, keepdim=True)
    if not bool(readable.all()):
        batch, target = (~readable).nonzero()[0].tolist()
        raise ValueError(f"key_mask leaves target {target} of batch entry {batch} no source to read")


def aft_simple(
    query: Float[Tensor, "b t d"] | None,
    key: Float[Tensor, "b t d"],
    value: Float[Tensor, "b t d"],
    *,
    causal: bool = False,
    key_mask: Bool[Tensor, "b t"] | None = None,
) -> Float[Tensor, "b t d"]:
    """Gate one softmax-weighted mean of the values with the query: Eq. 5.

    `key_mask` is True where a source may be read; `query=None` leaves the gate out (Table 12). Sums in float32 or
    wider and returns the value's dtype. Causal: prefix sums in float64 relative to the first readable key, exact
    for keys up to 640 nats above it (above, float64 overflows to NaN); a later source never moves a bit of an
    earlier target. Raises ValueError where a target has no source left.
    """
    dtype = accumulate_dtype(value.dtype)
    score = key.to(torch.float64 if causal else dtype)
    if key_mask is not None:
        require_source(key_mask, causal=causal)
        score = score.masked_fill(~key_mask.unsqueeze(-1), float("-inf"))
    if causal:
        weight = torch.exp(score - first_key(score.transpose(1, 2)).transpose(1, 2).detach())
        mean = ((weight * value).cumsum(1) / weight.cumsum(1)).to(dtype)
        return gate(query, mean, value.dtype)
    mean = _PooledMean.apply(score, value.to(dtype))
    return gate(query, mean.expand(value.shape), value.dtype)


class _PooledMean(torch.autograd.Function):
    """sum_s softmax(key)_s value_s over dim 1, `b 1 d`, with the softmax as all that backward keeps of the key."""

    @staticmethod
    def forward(ctx, key, value):
        """Weights, then one contraction over the sources."""
        weight = torch.softmax(key, dim=1)
        mean = torch.einsum("btd,btd->bd", weight, value).unsqueeze(1)
        ctx.save_for_backward(weight, value, mean)
        return mean

    @staticmethod
    def backward(ctx, gradient):
        """d value = weight g; d key = weight g (value - mean)."""
        weight, value, mean = ctx.saved_tensors
        grad_value = weight * gradient
        return grad_value * (value - mean), grad_value
