r"""AFT-conv whose heads keep k offsets: global pooling plus indexing (Sec. 8).

With e_s = e^(K_s - m), u_i = e^(w_i) - 1 and s_i the source at the i-th kept offset of the target,

    den_t = sum_s e_s + sum_i u_i e_{s_i},    out_t = (sum_s e_s V_s + sum_i u_i e_{s_i} V_{s_i}) / den_t

so the value is read once for the pool and k times for the offsets, and every weight is a small `b h t` tensor.
k = 1 is `forms.one_offset`, which is as exact for negative w.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from aft_lens.ops.bias import expand_offsets
from aft_lens.ops.check import biased, check_biases, check_grid
from aft_lens.ops.forms.gather import gather, gather_in_place, matmul
from aft_lens.ops.forms.one_offset import one_offset, one_offset_in_place
from aft_lens.ops.forms.rowwise import rowwise
from aft_lens.ops.forms.spec import accumulate_dtype
from aft_lens.ops.gate import gate
from aft_lens.ops.kernels import dispatch

IMPLEMENTATIONS = ("auto", "triton", "gather", "matmul", "rowwise")
MOST_NEGATIVE = -3.0
"""Gathers of k > 1 offsets take (1 - e^w) e_s out of a total: at w >= -3 rounding grows by at most e^3 = 20."""
LARGEST = 50.0
"""Most nats between max(w, 0) and min(w, 0) of a head. Every target reads the largest key, so up to here den_t is
at least e^-50 of it, and terms beyond float32's end at e^-87 are none of it."""
GATHERS_A_PRODUCT = 4
"""One gather of the value costs as much as this many of the matrix product's multiplications a value."""


def indexed_form(position_bias: Float[Tensor, "h k"], sources: int) -> str:
    """The form that `aft_indexed` takes by "auto" for this bias over that many sources.

    "pool" (k = 0); "gather"; "matmul" where k gathers cost more than a matrix product, or k > 1 and a bias is below
    `MOST_NEGATIVE`; "rowwise" where a head's biases and 0 lie further than `LARGEST` apart.
    """
    keep = position_bias.shape[1]
    if keep == 0 or position_bias.shape[0] == 0:
        return "pool"
    if dispatch.exporting():
        return "gather"
    low, high = torch.aminmax(position_bias.detach(), dim=1)
    if not float((high.clamp(min=0.0) - low.clamp(max=0.0)).max()) <= LARGEST:
        return "rowwise"
    if (keep > 1 and float(low.min()) < MOST_NEGATIVE) or keep * GATHERS_A_PRODUCT > sources:
        return "matmul"
    return "gather"


def aft_indexed(
    query: Float[Tensor, "b h c *grid"] | None,
    key: Float[Tensor, "b h *grid"],
    value: Float[Tensor, "b h c *grid"],
    position_bias: Float[Tensor, "h k"],
    offset: Int[Tensor, "h k n"],
    *,
    implementation: str = "auto",
    query_bias: Float[Tensor, "d"] | None = None,
    value_bias: Float[Tensor, "d"] | None = None,
) -> Float[Tensor, "b h c *grid"]:
    """Pool all sources once, then re-weight the k sources at each head's kept offsets.

    Equals `aft_conv` with a bias that is 0 but at `offset` (source minus target, in grid steps, distinct within a
    head wherever the bias is not 0). "gather" costs O(T k d) and is exact for k = 1 and |w| <= 50, and for k > 1
    where w >= -3 besides; "matmul" costs O(T T d) and is exact for biases up to 50 apart, "rowwise" for any finite
    bias. "auto" takes `indexed_form`'s choice, and gather while being exported. `query_bias` and `value_bias` and the
    layout in memory are as in `aft_conv`. Accumulates in float32 or wider. Raises ValueError on a wrong shape or
    option.
    """
    grid = key.shape[2:]
    check_grid(query, key, value)
    check_biases(query, value, query_bias, value_bias)
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"implementation must be one of {IMPLEMENTATIONS}, got {implementation!r}")
    if offset.shape[:2] != position_bias.shape or offset.shape[0] != key.shape[1]:
        raise ValueError(
            f"offset and position_bias must be (h k n) and (h k) with h = {key.shape[1]}, "
            f"got {tuple(offset.shape)} and {tuple(position_bias.shape)}"
        )
    if implementation == "triton" or (implementation == "auto" and value.is_cuda and not dispatch.exporting()):
        reason = dispatch.indexed_refusal(value, position_bias.shape[1], grid)
        if reason is None:
            flat = None if query is None else query.flatten(3)
            biases = {"query_bias": query_bias, "value_bias": value_bias}
            mixed = dispatch.indexed(flat, key.flatten(2), value.flatten(3), position_bias, offset, grid, **biases)
            return mixed.reshape(value.shape)
        if implementation == "triton":
            raise ValueError(f'implementation="triton" does not fit: the kernels {reason}; use "auto"')
        dispatch.tell(reason, "indexed AFT-conv")
    query, value = biased(query, query_bias), biased(value, value_bias)
    dtype = accumulate_dtype(value.dtype)
    k, v, w = key.to(dtype).flatten(2), value.to(dtype).flatten(3), position_bias.to(dtype)
    form = indexed_form(w, k.shape[-1]) if implementation == "auto" else implementation
    if form == "rowwise":
        mean = rowwise(k, v, expand_offsets(w, offset, grid))
    elif form == "matmul":
        mean = matmul(k, v, expand_offsets(w, offset, grid))
    else:
        # Gathering along positions that lie a token apart, as a layer's projection leaves them, costs 20 copies.
        k, v, single = k.contiguous(), v.contiguous(), w.shape[1] == 1
        if _in_place(key, value, position_bias, *(() if query is None else (query,))):
            gated = (one_offset_in_place if single else gather_in_place)(query, k, v, w, offset, grid)
            return gated.reshape(value.shape).to(value.dtype)
        mean = (one_offset if single else gather)(k, v, w, offset, grid)
    return gate(query, mean.reshape(value.shape), value.dtype)


def _in_place(*tensors: Tensor) -> bool:
    """Whether memory may be written again: nothing is being traced and no gradient is asked."""
    if torch.compiler.is_compiling():
        return False
    return not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors))
