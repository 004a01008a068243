"""AFT-simple: no position bias, one softmax over the sources (Eq. 5)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from aft_lens.ops import reference
from aft_lens.ops.check import check_tokens
from aft_lens.ops.forms.simple_sums import SimpleMean, simple_by_prefix_sums
from aft_lens.ops.forms.spec import accumulate_dtype
from aft_lens.ops.gate import gate
from aft_lens.ops.kernels import dispatch
from aft_lens.ops.transforms import transformed, unseen


def require_source(key_mask: Bool[Tensor, "b t"], *, causal: bool) -> None:
    """Raise ValueError naming the first target that `key_mask` leaves without a source, where values can be seen."""
    if unseen(key_mask):
        return
    served = key_mask.cumsum(1) > 0 if causal else key_mask.any(1, keepdim=True)
    if not bool(served.all()):
        batch, target = (~served).nonzero()[0].tolist()
        raise ValueError(f"key_mask leaves target {target} of batch entry {batch} no source to read")


def readable(key: Float[Tensor, "b t d"], key_mask: Bool[Tensor, "b t"] | None, *, causal: bool) -> Tensor:
    """The keys, -inf where `key_mask` is False; raises ValueError as `require_source`."""
    if key_mask is None:
        return key
    require_source(key_mask, causal=causal)
    return key.masked_fill(~key_mask.unsqueeze(-1), float("-inf"))


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
    wider and returns the value's dtype; exact for any finite keys. Causal: prefix sums in float64; a later source never
    moves a bit of an earlier target. A key of -inf is not read, and a target that reads nothing gets 0. On CUDA by
    Triton kernels where they take the dtype. Raises ValueError on a wrong shape or where `key_mask` leaves a target no
    source.
    """
    check_tokens(query, key, value, key_mask)
    if transformed():
        return reference.aft_simple(query, key, value, causal=causal, key_mask=key_mask).to(value.dtype)
    if value.is_cuda:
        reason = dispatch.scan_refusal(value, key, query)
        if reason is None:
            return dispatch.simple(query, readable(key, key_mask, causal=causal), value, causal=causal)
        dispatch.tell(reason, "AFT-simple")
    if causal:
        return simple_by_prefix_sums(query, readable(key, key_mask, causal=True), value)
    dtype = accumulate_dtype(key, value)
    score = readable(key.to(dtype), key_mask, causal=False)
    if torch.compiler.is_compiling():
        empty = (score == float("-inf")).all(1, keepdim=True)
        weight = torch.softmax(score.masked_fill(empty, 0.0), dim=1)
        mean = (weight * value.to(dtype)).sum(1, keepdim=True).masked_fill(empty, 0.0)
        return gate(query, mean.expand(value.shape), value.dtype)
    wide = None if query is None else query.to(dtype)
    return SimpleMean.apply(wide, score, value.to(dtype)).to(value.dtype)
