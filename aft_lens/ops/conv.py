r"""AFT-conv: position biases shared over a 1-D or 2-D grid (Eq. 6), in forms without cancellation.

`forms` holds the sums and the safeguard that redoes extreme targets in float64.
"""

from jaxtyping import Float
from torch import Tensor

from aft_lens.ops import reference
from aft_lens.ops.bias import check_outside, check_window, expand_bias
from aft_lens.ops.check import biased, check_biases, check_floating, check_grid
from aft_lens.ops.forms.rowwise import rowwise
from aft_lens.ops.forms.spec import Spec, accumulate_dtype
from aft_lens.ops.forms.weighted_mean import weighted_mean
from aft_lens.ops.gate import gate
from aft_lens.ops.kernels import dispatch
from aft_lens.ops.transforms import check_plain, transformed

IMPLEMENTATIONS = ("auto", "triton", "matmul", "convolution", "banded", "rowwise")


def aft_conv(
    query: Float[Tensor, "b h c *grid"] | None,
    key: Float[Tensor, "b h *grid"],
    value: Float[Tensor, "b h c *grid"],
    position_bias: Float[Tensor, "h *window"],
    *,
    causal: bool = False,
    outside: str = "global",
    implementation: str = "auto",
    query_bias: Float[Tensor, "d"] | None = None,
    value_bias: Float[Tensor, "d"] | None = None,
) -> Float[Tensor, "b h c *grid"]:
    """Mix values over a grid with h shared position biases and one key channel a head: Eq. 6 with exp(K).

    `query=None` leaves the gate out (Table 12). `outside="none"` removes everything beyond the window (Sec. 5.3).
    `causal` reads sources up to the target in raster order; no later one moves a bit of the result.
    `query_bias` and `value_bias` (d = h c) are added to query and value first, by kernels on the way. Kernels are
    fastest where memory runs `h c b *grid`, as a projection W x^T leaves it; the result then runs the same way.
    `implementation` is "matmul" (bias written out to a block of targets at a time), "convolution" (depth-wise, the
    rest of the grid by 0/1 bands; not causal), "banded" (1-D chunks), "rowwise" (exact for any finite input, holds
    h x T x T), "triton" (fused kernels on CUDA) or "auto", the fastest as measured. Sums in float32 or wider and
    returns the value's dtype; exact for any finite keys and biases. Raises ValueError on an even window, a wrong shape
    or dtype, an unknown option or, with "triton", what the kernels do not take.
    """
    grid, out = key.shape[2:], value.dtype
    check_grid(query, key, value)
    check_floating(position_bias=position_bias)
    check_biases(query, value, query_bias, value_bias)
    check_outside(outside)
    check_window(position_bias.shape[1:], grid)
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"implementation must be one of {IMPLEMENTATIONS}, got {implementation!r}")
    if position_bias.shape[0] != key.shape[1]:
        raise ValueError(f"position_bias must have {key.shape[1]} heads like key, got {position_bias.shape[0]}")
    if implementation == "convolution" and causal:
        raise ValueError('implementation="convolution" has no causal form; use "auto" or "rowwise"')
    if implementation == "banded" and len(grid) != 1:
        raise ValueError(f'implementation="banded" is for 1-D grids, got grid {tuple(grid)}; use "auto"')

    if transformed():
        check_plain(implementation)
        query, value = biased(query, query_bias), biased(value, value_bias)
        return reference.aft_conv(query, key, value, position_bias, causal=causal, outside=outside).to(out)
    if implementation == "triton" or (implementation == "auto" and value.is_cuda):
        reason = dispatch.refusal(
            value, key, query, position_bias, window=position_bias.shape[1:], grid=grid, causal=causal, outside=outside
        )
        if reason is None:
            flat = None if query is None else query.flatten(3)
            biases = {"query_bias": query_bias, "value_bias": value_bias}
            mixed = dispatch.conv(flat, key.flatten(2), value.flatten(3), position_bias, grid, **biases)
            return mixed.reshape(value.shape)
        if implementation == "triton":
            raise ValueError(f'implementation="triton" does not fit: the kernels {reason}; use "auto"')
        dispatch.tell(reason)
    query, value = biased(query, query_bias), biased(value, value_bias)
    dtype = accumulate_dtype(key, value, position_bias)
    k, v, w = key.to(dtype).flatten(2), value.to(dtype).flatten(3), position_bias.to(dtype)
    if implementation == "rowwise":
        mean = rowwise(k, v, expand_bias(w, grid, causal=causal, outside=outside))
    else:
        spec = Spec("conv" if implementation == "auto" else implementation, tuple(grid), causal=causal, outside=outside)
        mean = weighted_mean(k.transpose(0, 1), v.transpose(0, 1), [w], spec).transpose(0, 1)
    return gate(query, mean.reshape(value.shape), out)
