"""AFT-conv on small grids as a custom operator: launches of the fused and exact kernels."""

import math

import torch
import triton
from torch import Tensor

from aft_lens.ops.kernels.dense import hopper
from aft_lens.ops.kernels.dense.backward import diagonal_kernel, gate_kernel, pair_kernel, source_kernel
from aft_lens.ops.kernels.dense.exact import exact_backward_kernel, exact_forward_kernel
from aft_lens.ops.kernels.dense.forward import expand_kernel, forward_kernel
from aft_lens.ops.kernels.dense.forward_one import forward_one_kernel
from aft_lens.ops.kernels.launch import (
    EXACT_WAVE,
    Geometry,
    batch_strides,
    batch_unit,
    channel_leading,
    dot_dtype,
    empty_channel_leading,
    last_contiguous,
    strides,
)
from aft_lens.ops.kernels.tiles import SAFE_RANGE


def _expand(w, geometry, t, dtype):
    """The launch that writes e^(w - a) `h t t_pad`, and each head's range `h`."""
    e = torch.empty(w.shape[0], t, geometry.padded, dtype=dot_dtype(dtype), device=w.device)
    span = torch.empty(w.shape[0], dtype=torch.float32, device=w.device)
    expand_kernel[(w.shape[0], triton.cdiv(t, 16))](
        w, e, span, t, geometry.padded, geometry.columns, *geometry.window, geometry.window_block, 16, geometry.block
    )
    return e, span


def _forward(query, key, value, w, query_bias, value_bias, grid, keep, expanded=None):
    """The launches of a forward pass; 1 / den and max key are None unless kept for the gradients."""
    geometry = Geometry.of(grid, w)
    b, h, c, t = value.shape
    w, key, value = w.contiguous(), last_contiguous(key), channel_leading(value)
    q = value if query is None else channel_leading(query)
    y = empty_channel_leading(value)
    kernel_dtype = dot_dtype(value.dtype)
    inverse = torch.empty(h, b, t, dtype=kernel_dtype, device=value.device) if keep else None
    top = torch.empty(h, b, dtype=torch.float32, device=value.device) if keep else None
    e, span = _expand(w, geometry, t, value.dtype) if expanded is None else expanded
    on_hopper = hopper.takes(geometry, c, value.dtype, value.device)
    tiles = hopper.TILES if on_hopper else geometry.forward_tiles(b, h, c, value.dtype)
    gated, biased = query is not None, query_bias is not None or value_bias is not None
    unit, precision = batch_unit(q, key, value, y), geometry.precision(value.dtype)
    programs = (h * triton.cdiv(t, tiles.block_t), triton.cdiv(b, tiles.block_b * tiles.b_steps))
    tensors = (q, key, value, e, y, inverse, top, query_bias, value_bias, b)
    blocks = (t, geometry.padded, geometry.block, tiles.block_t, tiles.block_b, tiles.b_steps)
    features = (unit, gated, biased, keep)
    count = 2 if c == 1 else 3
    steps = [step for x, n in ((q, count), (key, 2), (value, count), (y, count)) for step in batch_strides(x, n, unit)]
    if on_hopper:
        hopper.forward_hopper_kernel[programs](
            *tensors, *steps, t, geometry.padded, tiles.block_b, tiles.b_steps, *features, num_warps=tiles.warps
        )
    elif c == 1:
        forward_one_kernel[programs](*tensors, *steps, *blocks, *features, precision, **tiles.options)
    else:
        forward_kernel[programs](*tensors, *steps, c, *blocks, *features, precision, **tiles.options)
    exact_forward_kernel[(min(h * b, EXACT_WAVE),)](
        q, key, value, w, span, y, query_bias, value_bias, b, c, h,
        *strides(q, 3), *strides(key, 2), *strides(value, 3), *strides(y, 3),
        t, geometry.columns, *geometry.window, triton.next_power_of_2(h), 16, geometry.block, gated, biased, SAFE_RANGE,
    )  # fmt: skip
    return y, inverse, top, e


@torch.library.custom_op("aft_lens::dense_forward", mutates_args=())
def dense_forward(
    query: Tensor | None, key: Tensor, value: Tensor, w: Tensor,
    query_bias: Tensor | None, value_bias: Tensor | None, grid: list[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Mix: y `b h c t`, and for the gradients 1 / den `h b t`, max key `h b` and e^(w - a) `h t t_pad`."""
    return _forward(query, key, value, w, query_bias, value_bias, grid, keep=True)


@dense_forward.register_fake
def _(query, key, value, w, query_bias, value_bias, grid):
    b, h, _, t = value.shape
    dtype = dot_dtype(value.dtype)
    return (
        empty_channel_leading(value),
        value.new_empty(h, b, t, dtype=dtype),
        value.new_empty(h, b, dtype=torch.float32),
        value.new_empty(h, t, Geometry.of(grid, w).padded, dtype=dtype),
    )


@torch.library.custom_op("aft_lens::dense_inference", mutates_args=())
def dense_inference(
    query: Tensor | None, key: Tensor, value: Tensor, w: Tensor,
    query_bias: Tensor | None, value_bias: Tensor | None, grid: list[int],
) -> Tensor:  # fmt: skip
    """y of `dense_forward` alone, where no gradient is asked for: 1 / den and max key are not written."""
    return _forward(query, key, value, w, query_bias, value_bias, grid, keep=False)[0]


@dense_inference.register_fake
def _(query, key, value, w, query_bias, value_bias, grid):
    return empty_channel_leading(value)


@torch.library.custom_op("aft_lens::dense_expand", mutates_args=())
def dense_expand(w: Tensor, grid: list[int], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """What `dense_inference` makes of w alone, for values of a dtype: e^(w - a) `h t t_pad`, each head's range `h`."""
    return _expand(w.contiguous(), Geometry.of(grid, w), math.prod(grid), dtype)


@dense_expand.register_fake
def _(w, grid, dtype):
    shape = (w.shape[0], math.prod(grid), Geometry.of(grid, w).padded)
    return w.new_empty(shape, dtype=dot_dtype(dtype)), w.new_empty(w.shape[0], dtype=torch.float32)


@torch.library.custom_op("aft_lens::dense_prepared", mutates_args=())
def dense_prepared(
    query: Tensor | None, key: Tensor, value: Tensor, w: Tensor,
    query_bias: Tensor | None, value_bias: Tensor | None, e: Tensor, span: Tensor, grid: list[int],
) -> Tensor:  # fmt: skip
    """`dense_inference` with what `dense_expand` made of w before."""
    return _forward(query, key, value, w, query_bias, value_bias, grid, keep=False, expanded=(e, span))[0]


@dense_prepared.register_fake
def _(query, key, value, w, query_bias, value_bias, e, span, grid):
    return empty_channel_leading(value)


@torch.library.custom_op("aft_lens::dense_backward", mutates_args=())
def dense_backward(
    dy: Tensor, query: Tensor | None, key: Tensor, value: Tensor, w: Tensor,
    query_bias: Tensor | None, value_bias: Tensor | None,
    y: Tensor, inverse: Tensor, top: Tensor, e: Tensor, grid: list[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients: query `b h c t` (empty without one), key `b h t`, value `b h c t`, w in float32."""
    geometry = Geometry.of(grid, w)
    b, h, c, t = value.shape
    gated, biased = query is not None, query_bias is not None or value_bias is not None
    w, key, value, dy = w.contiguous(), last_contiguous(key), channel_leading(value), channel_leading(dy)
    q = value if query is None else channel_leading(query)
    dq = empty_channel_leading(value) if gated else value.new_empty(0)
    dv = empty_channel_leading(value)
    dk = torch.empty(h, b, t, dtype=key.dtype, device=key.device)
    dnum = torch.empty(h, c, b, t, dtype=e.dtype, device=key.device)
    dden = torch.empty(h, b, t, dtype=e.dtype, device=key.device)
    tiles = geometry.backward_tiles(b, h, c, value.dtype)
    precision = geometry.precision(value.dtype)
    unit = batch_unit(q, key, value, y, dy)
    gate_rows = geometry.gate_rows()
    gate_kernel[(h, triton.cdiv(b, gate_rows))](
        q, y, inverse, query_bias, value_bias, dy, dq, dnum, dden, b, c,
        *batch_strides(q, 3, unit), *batch_strides(y, 3, unit), *batch_strides(dy, 3, unit),
        t, geometry.block, gate_rows, unit, gated, biased, num_warps=4,
    )  # fmt: skip
    source_kernel[(h * triton.cdiv(t, tiles.block_t), triton.cdiv(b, tiles.block_b * tiles.b_steps))](
        key, value, e, top, dnum, dden, dk, dv, b, c, *batch_strides(key, 2, unit), *batch_strides(value, 3, unit),
        t, geometry.padded, geometry.block, tiles.block_t, tiles.block_b, tiles.b_steps, unit, precision,
        **tiles.options,
    )  # fmt: skip
    pair = geometry.pair_tiles(b, h, c, value.dtype)
    splits = triton.cdiv(b, pair.block_b * pair.b_steps)
    de = torch.empty(splits, h, t, t, dtype=torch.float32, device=key.device)
    pair_kernel[(h * triton.cdiv(t, pair.block_t) ** 2, splits)](
        key, value, top, dnum, dden, de, b, c, h,
        *batch_strides(key, 2, unit), *batch_strides(value, 3, unit),
        t, pair.block_t, pair.block_b, pair.b_steps, unit, precision, **pair.options,
    )  # fmt: skip
    dw = torch.empty(w.shape, dtype=torch.float32, device=w.device)
    span = torch.empty(h, dtype=torch.float32, device=w.device)
    diagonal_kernel[(h, geometry.window[0])](
        w, de, dw, span, h, splits, *geometry.grid, *geometry.window, geometry.window_block,
        triton.next_power_of_2(geometry.columns), SAFE_RANGE,
    )  # fmt: skip
    exact_backward_kernel[(min(h * b, EXACT_WAVE),)](
        q, key, value, w, span, query_bias, dy, dk, dv, dw, b, c, h,
        *strides(q, 3), *strides(key, 2), *strides(value, 3), *strides(dy, 3),
        t, geometry.columns, *geometry.window, triton.next_power_of_2(h), 16, geometry.block, gated, biased, SAFE_RANGE,
    )  # fmt: skip
    return dq, dk.transpose(0, 1), dv, dw


@dense_backward.register_fake
def _(dy, query, key, value, w, query_bias, value_bias, y, inverse, top, e, grid):
    b, h, _, t = value.shape
    dq = value.new_empty(0) if query is None else empty_channel_leading(value)
    dk = key.new_empty(h, b, t).transpose(0, 1)
    return dq, dk, empty_channel_leading(value), w.new_empty(w.shape, dtype=torch.float32)


def _setup(ctx, inputs, output):
    *tensors, grid = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.grid = grid


def _backward(ctx, dy, *unused):
    query, key, value, w, query_bias, value_bias, *saved = ctx.saved_tensors
    dq, dk, dv, dw = dense_backward(dy, query, key, value, w, query_bias, value_bias, *saved, ctx.grid)
    dqb = None if query_bias is None else dq.sum((0, 3)).reshape(query_bias.shape).to(query_bias.dtype)
    dvb = None if value_bias is None else dv.sum((0, 3)).reshape(value_bias.shape).to(value_bias.dtype)
    return dq if query is not None else None, dk, dv, dw.to(w.dtype), dqb, dvb, None


dense_forward.register_autograd(_backward, setup_context=_setup)
