"""Pooling and indexing as a custom operator: launches of the fused kernels."""

import math

import torch
import triton
from torch import Tensor

from aft_lens.ops.kernels.indexed.backward import backward_kernel
from aft_lens.ops.kernels.indexed.exact import exact_backward_kernel
from aft_lens.ops.kernels.indexed.forward import forward_kernel
from aft_lens.ops.kernels.indexed.launch import BACKWARD, EXACT_PROGRAMS, FORWARD, padded, row_tiles
from aft_lens.ops.kernels.launch import (
    batch_strides,
    batch_unit,
    channel_leading,
    empty_channel_leading,
    last_contiguous,
    strides,
)
from aft_lens.ops.kernels.tiles import SAFE_RANGE

LOWEST = {torch.float32: -3.0, torch.bfloat16: -7.0, torch.float16: -7.0}
"""At biases w from here up a denominator keeps e^w of the sum it is taken from, or more: rounding in float32 (6e-8)
grows 20 times, which float32 values can bear, or to 7e-5, which is far below the rounding of 16-bit ones."""


@torch.library.custom_op("aft_lens::indexed_forward", mutates_args=())
def indexed_forward(
    query: Tensor | None, key: Tensor, value: Tensor, w: Tensor, offset: Tensor,
    query_bias: Tensor | None, value_bias: Tensor | None, grid: list[int],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Mix: y `b h c t`, and `h c+2 b` in float32: pooled values, max key in powers of two, sum of e^(key - max)."""
    b, h, c, t = value.shape
    w, offset, key, value = w.contiguous(), offset.contiguous(), last_contiguous(key), channel_leading(value)
    q = value if query is None else channel_leading(query)
    y = empty_channel_leading(value)
    stats = torch.empty(h, c + 2, b, dtype=torch.float32, device=value.device)
    tiles = row_tiles(FORWARD, b, c, t, w.shape[1])
    gated, biased = query is not None, query_bias is not None or value_bias is not None
    unit, lowest = batch_unit(q, key, value, y), LOWEST[value.dtype]
    forward_kernel[(h * tiles.splits, triton.cdiv(b, tiles.rows * tiles.steps))](
        q, key, value, w, offset, y, stats, query_bias, value_bias, b,
        *batch_strides(q, 3, unit), *batch_strides(key, 2, unit), *batch_strides(value, 3, unit),
        *batch_strides(y, 3, unit),
        c, t, grid[-1], len(grid), w.shape[1], padded(t) // tiles.lanes, tiles.lanes, tiles.rows, tiles.steps,
        c // tiles.splits, tiles.splits, unit, gated, biased, lowest, math.exp(lowest), SAFE_RANGE,
        **tiles.options(),
    )  # fmt: skip
    return y, stats


@indexed_forward.register_fake
def _(query, key, value, w, offset, query_bias, value_bias, grid):
    b, h, c, _ = value.shape
    return empty_channel_leading(value), value.new_empty(h, c + 2, b, dtype=torch.float32)


@torch.library.custom_op("aft_lens::indexed_backward", mutates_args=())
def indexed_backward(
    dy: Tensor, query: Tensor | None, key: Tensor, value: Tensor, w: Tensor, offset: Tensor,
    query_bias: Tensor | None, value_bias: Tensor | None, stats: Tensor, grid: list[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients: query `b h c t` (empty without one), key `b h t`, value `b h c t`, w in float32."""
    b, h, c, t = value.shape
    keep = w.shape[1]
    gated, biased = query is not None, query_bias is not None or value_bias is not None
    w, offset, key, value, dy = (
        w.contiguous(),
        offset.contiguous(),
        last_contiguous(key),
        channel_leading(value),
        channel_leading(dy),
    )
    q = value if query is None else channel_leading(query)
    dq = empty_channel_leading(value) if gated else value.new_empty(0)
    dv = empty_channel_leading(value)
    dk = torch.empty(h, b, t, dtype=key.dtype, device=key.device)
    inverse, dden = (torch.empty(h, b if keep > 1 else 0, t, dtype=torch.float32, device=key.device) for _ in range(2))
    tiles = row_tiles(BACKWARD, b, c, t, keep)
    programs, exact = triton.cdiv(b, tiles.rows * tiles.steps), min(b, EXACT_PROGRAMS)
    dw = torch.empty(h, keep, programs + exact, dtype=torch.float32, device=key.device)
    unit, keep_block = batch_unit(q, key, value, dy), triton.next_power_of_2(max(1, keep))
    backward_kernel[(h, programs)](
        q, key, value, w, offset, stats, query_bias, value_bias, dy, dq, dk, dv, dw, inverse, dden, b, programs + exact,
        *batch_strides(q, 3, unit), *batch_strides(key, 2, unit), *batch_strides(value, 3, unit),
        *batch_strides(dy, 3, unit),
        c, t, grid[-1], len(grid), keep, keep_block, padded(t) // tiles.lanes, tiles.lanes, tiles.rows, tiles.steps,
        unit, gated, biased, **tiles.options(),
    )  # fmt: skip
    if keep:
        spare = torch.empty(h, exact, 3, t, dtype=torch.float32, device=key.device)
        exact_backward_kernel[(h, exact)](
            q, key, value, w, offset, stats, query_bias, value_bias, dy, dq, dk, dv, dw, spare, b, c,
            programs + exact, *strides(q, 3), *strides(key, 2), *strides(value, 3), *strides(dy, 3),
            t, grid[-1], len(grid), keep, keep_block, triton.next_power_of_2(triton.cdiv(b, exact)),
            gated, biased, 16, num_warps=4,
        )  # fmt: skip
    return dq, dk.transpose(0, 1), dv, dw.sum(-1)


@indexed_backward.register_fake
def _(dy, query, key, value, w, offset, query_bias, value_bias, stats, grid):
    b, h, _, t = value.shape
    dq = value.new_empty(0) if query is None else empty_channel_leading(value)
    dk = key.new_empty(h, b, t).transpose(0, 1)
    return dq, dk, empty_channel_leading(value), w.new_empty(w.shape, dtype=torch.float32)


def _setup(ctx, inputs, output):
    *tensors, grid = inputs
    ctx.save_for_backward(*tensors, output[1])
    ctx.grid = grid


def _backward(ctx, dy, *unused):
    query, key, value, w, offset, query_bias, value_bias, stats = ctx.saved_tensors
    dq, dk, dv, dw = indexed_backward(dy, query, key, value, w, offset, query_bias, value_bias, stats, ctx.grid)
    dqb = None if query_bias is None else dq.sum((0, 3)).reshape(query_bias.shape).to(query_bias.dtype)
    dvb = None if value_bias is None else dv.sum((0, 3)).reshape(value_bias.shape).to(value_bias.dtype)
    return dq if query is not None else None, dk, dv, dw.to(w.dtype), None, dqb, dvb, None


indexed_forward.register_autograd(_backward, setup_context=_setup)
