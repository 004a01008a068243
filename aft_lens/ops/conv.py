r"""AFT-conv: position biases shared over a 1-D or 2-D grid (Eq. 6), in forms without cancellation.

`forms` holds the sums and the safeguard that redoes extreme targets in float64.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from aft_lens.ops import reference
from aft_lens.ops.bias import PreparedBias, check_outside, check_window, expand_bias
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
    position_bias: Float[Tensor, "h *window"] | PreparedBias,
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
    or dtype, an unknown option or, with "triton", what the kernels do not take. A bias of `prepare_bias` saves what
    depends on it alone where no gradient is asked for, and raises ValueError on another grid or dtype than its own.
    """
    grid, out = key.shape[2:], value.dtype
    prepared = position_bias if isinstance(position_bias, PreparedBias) else None
    bias = _of(position_bias, grid, out)
    check_grid(query, key, value)
    check_floating(position_bias=bias)
    check_biases(query, value, query_bias, value_bias)
    check_outside(outside)
    check_window(bias.shape[1:], grid)
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"implementation must be one of {IMPLEMENTATIONS}, got {implementation!r}")
    if bias.shape[0] != key.shape[1]:
        raise ValueError(f"position_bias must have {key.shape[1]} heads like key, got {bias.shape[0]}")
    if implementation == "convolution" and causal:
        raise ValueError('implementation="convolution" has no causal form; use "auto" or "rowwise"')
    if implementation == "banded" and len(grid) != 1:
        raise ValueError(f'implementation="banded" is for 1-D grids, got grid {tuple(grid)}; use "auto"')

    if transformed():
        check_plain(implementation)
        query, value = biased(query, query_bias), biased(value, value_bias)
        return reference.aft_conv(query, key, value, bias, causal=causal, outside=outside).to(out)
    if implementation == "triton" or (implementation == "auto" and value.is_cuda):
        reason = dispatch.refusal(
            value, key, query, bias, window=bias.shape[1:], grid=grid, causal=causal, outside=outside
        )
        if reason is None:
            flat = None if query is None else query.flatten(3)
            biases = {"query_bias": query_bias, "value_bias": value_bias}
            mixed = dispatch.conv(flat, key.flatten(2), value.flatten(3), bias, grid, prepared=prepared, **biases)
            return mixed.reshape(value.shape)
        if implementation == "triton":
            raise ValueError(f'implementation="triton" does not fit: the kernels {reason}; use "auto"')
        dispatch.tell(reason)
    query, value = biased(query, query_bias), biased(value, value_bias)
    dtype = accumulate_dtype(key, value, bias)
    k, v, w = key.to(dtype).flatten(2), value.to(dtype).flatten(3), bias.to(dtype)
    if implementation == "rowwise":
        mean = rowwise(k, v, expand_bias(w, grid, causal=causal, outside=outside))
    else:
        spec = Spec("conv" if implementation == "auto" else implementation, tuple(grid), causal=causal, outside=outside)
        mean = weighted_mean(k.transpose(0, 1), v.transpose(0, 1), [w], spec).transpose(0, 1)
    return gate(query, mean.reshape(value.shape), out)


def prepare_bias(
    position_bias: Float[Tensor, "h *window"], grid: Sequence[int], dtype: torch.dtype
) -> Float[Tensor, "h *window"] | PreparedBias:
    """What `aft_conv` may take in place of a bias that does not change, for a grid and values of a dtype.

    The bias itself where the kernels make nothing of it alone: without them, and on grids above 256 positions.
    """
    check_floating(position_bias=position_bias)
    check_window(position_bias.shape[1:], grid)
    return dispatch.prepared(position_bias, tuple(grid), dtype)


def _of(prepared: Tensor | PreparedBias, grid: Sequence[int], dtype: torch.dtype) -> Tensor:
    """The bias as it is; ValueError where it was prepared for another grid or dtype."""
    if isinstance(prepared, Tensor):
        return prepared
    if (prepared.grid, prepared.dtype) != (tuple(grid), dtype):
        raise ValueError(
            f"position_bias was prepared for grid {prepared.grid} and {prepared.dtype}, got {tuple(grid)} and {dtype}; "
            "prepare it for these"
        )
    return prepared.w
