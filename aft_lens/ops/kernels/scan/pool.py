"""AFT-simple over every source as a custom operator: a sum, and an elementwise pass each way and side."""

import torch
from torch import Tensor

from aft_lens.ops.kernels.scan.launch import Runs, channels_last, like, prefixes, steps, sums
from aft_lens.ops.kernels.scan.pool_kernels import open_backward_kernel, open_kernel, pool_backward_kernel
from aft_lens.ops.kernels.scan.simple import empty_gradients, save_all

ROWS = 32
"""Positions of a tile."""


@torch.library.custom_op("aft_lens::pool_simple", mutates_args=())
def pool_simple(query: Tensor | None, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """AFT-simple of `b t d` over every source: the output, and (log of the denominator, mean), `b 1 d`."""
    key, value = channels_last(key), channels_last(value)
    q = value if query is None else channels_last(query)
    runs = Runs.of(value, ROWS, warps=4)
    log, mean = (part[:, -1:].contiguous() for part in prefixes(key, value, runs.count, runs.steps * ROWS))
    y = like(value, value.dtype)
    d = value.shape[2]
    open_kernel[runs.programs(value, runs.tiles)](
        q, y, mean, value.shape[1], d, *steps(q), runs.tiles, runs.rows, runs.block, query is not None,
        num_warps=runs.warps,
    )  # fmt: skip
    return y, log, mean


@pool_simple.register_fake
def _(query, key, value):
    state = value.new_empty(len(value), 1, value.shape[2], dtype=torch.float32)
    return like(value, value.dtype), state, torch.empty_like(state)


@torch.library.custom_op("aft_lens::pool_simple_backward", mutates_args=())
def pool_simple_backward(
    dy: Tensor, query: Tensor | None, key: Tensor, value: Tensor, log: Tensor, mean: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query (empty without one), key and value."""
    dy, key, value = channels_last(dy), channels_last(key), channels_last(value)
    q = value if query is None else channels_last(query)
    runs = Runs.of(value, ROWS, warps=4)
    dq, dk, dv = empty_gradients(dy, query, key, value, log, mean)
    t, d = value.shape[1:]
    (partial,) = sums(value, runs.count, 1)
    open_backward_kernel[runs.programs(value)](
        dy, q, mean, dq, partial, t, d, *steps(dy), *steps(q), runs.count, runs.steps, runs.rows, runs.block,
        query is not None, num_warps=runs.warps,
    )  # fmt: skip
    pool_backward_kernel[runs.programs(value, runs.tiles)](
        key, value, log, mean, partial.sum(1), dk, dv, t, d, *steps(key), *steps(value), runs.tiles,
        runs.rows, runs.block, num_warps=runs.warps,
    )  # fmt: skip
    return dq, dk, dv


pool_simple_backward.register_fake(empty_gradients)


def _backward(ctx, dy, *unused):
    dq, dk, dv = pool_simple_backward(dy, *ctx.saved_tensors)
    return None if ctx.saved_tensors[0] is None else dq, dk, dv


pool_simple.register_autograd(_backward, setup_context=save_all)
