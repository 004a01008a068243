r"""AFT-conv whose heads keep k offsets: global pooling plus indexing (Sec. 8).

With e_s = e^(K_s - m), u_i = e^(w_i) - 1 and s_i the source at the i-th kept offset of the target,

    den_t = sum_s e_s + sum_i u_i e_{s_i},    out_t = (sum_s e_s V_s + sum_i u_i e_{s_i} V_{s_i}) / den_t

so the value is read once for the pool and k times for the offsets, and every weight is a small `b h t` tensor.
k = 1 is `forms.one_offset`, which is exact for any w.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from aft_lens.ops import reference
from aft_lens.ops.check import biased, check_biases, check_floating, check_grid
from aft_lens.ops.forms.gather import gather_in_place
from aft_lens.ops.forms.indexed_mean import LARGEST, MOST_NEGATIVE, indexed_form, mean_by, opaque_mean
from aft_lens.ops.forms.one_offset import one_offset_in_place
from aft_lens.ops.forms.spec import accumulate_dtype
from aft_lens.ops.gate import gate
from aft_lens.ops.kernels import dispatch
from aft_lens.ops.transforms import check_plain, transformed, unseen

__all__ = ["IMPLEMENTATIONS", "LARGEST", "MOST_NEGATIVE", "aft_indexed", "indexed_form"]
IMPLEMENTATIONS = ("auto", "triton", "gather", "matmul", "rowwise")


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
    head wherever the bias is not 0). "gather" costs O(T k d) and is exact for k = 1, and for k > 1 where biases lie
    within 50 of each other and of 0 and none is below -3; "matmul" costs O(T T d) and is exact for biases up to 50
    apart, "rowwise" for any. "auto" takes `indexed_form`'s choice, and gather while being exported. `query_bias` and
    `value_bias` and the layout in memory are as in `aft_conv`. Accumulates in float32 or wider. Raises ValueError on a
    wrong shape, dtype or option.
    """
    grid, out = key.shape[2:], value.dtype
    check_grid(query, key, value)
    check_floating(position_bias=position_bias)
    check_biases(query, value, query_bias, value_bias)
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"implementation must be one of {IMPLEMENTATIONS}, got {implementation!r}")
    if offset.shape[:2] != position_bias.shape or offset.shape[0] != key.shape[1]:
        raise ValueError(
            f"offset and position_bias must be (h k n) and (h k) with h = {key.shape[1]}, "
            f"got {tuple(offset.shape)} and {tuple(position_bias.shape)}"
        )
    if transformed():
        check_plain(implementation)
        query, value = biased(query, query_bias), biased(value, value_bias)
        return reference.aft_indexed(query, key, value, position_bias, offset).to(out)
    if implementation == "triton" or (implementation == "auto" and value.is_cuda and not dispatch.exporting()):
        reason = dispatch.indexed_refusal(value, key, query, position_bias, keep=position_bias.shape[1], grid=grid)
        if reason is None:
            flat = None if query is None else query.flatten(3)
            biases = {"query_bias": query_bias, "value_bias": value_bias}
            mixed = dispatch.indexed(flat, key.flatten(2), value.flatten(3), position_bias, offset, grid, **biases)
            return mixed.reshape(value.shape)
        if implementation == "triton":
            raise ValueError(f'implementation="triton" does not fit: the kernels {reason}; use "auto"')
        dispatch.tell(reason, "indexed AFT-conv")
    query, value = biased(query, query_bias), biased(value, value_bias)
    dtype = accumulate_dtype(key, value, position_bias)
    # Gathering along positions that lie a token apart, as a layer's projection leaves them, costs 20 copies.
    k, v, w = key.to(dtype).flatten(2).contiguous(), value.to(dtype).flatten(3).contiguous(), position_bias.to(dtype)
    keep = w.shape[1]
    if implementation == "auto" and keep > 1 and unseen(w) and not dispatch.exporting():
        return gate(query, opaque_mean(k, v, w, offset, list(grid)).reshape(value.shape), out)
    form = implementation
    if form == "auto":
        form = "gather" if keep == 1 or dispatch.exporting() else indexed_form(w, k.shape[-1])
    if form == "gather" and _in_place(k, v, w, *(() if query is None else (query,))):
        gated = (one_offset_in_place if keep == 1 else gather_in_place)(query, k, v, w, offset, grid)
        return gated.reshape(value.shape).to(out)
    return gate(query, mean_by(form, k, v, w, offset, grid).reshape(value.shape), out)


def _in_place(*tensors: Tensor) -> bool:
    """Whether memory may be written again: nothing is being traced and no gradient is asked."""
    return not unseen(tensors[0]) and not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors))
