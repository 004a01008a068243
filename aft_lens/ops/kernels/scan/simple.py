"""Causal AFT-simple as a custom operator: launches of the scan."""

import torch
from torch import Tensor

from aft_lens.ops.kernels.scan.launch import Runs, channels_last, steps, sums
from aft_lens.ops.kernels.scan.simple_kernels import simple_backward_kernel, simple_forward_kernel
from aft_lens.ops.kernels.scan.state import prefix_kernel, run_kernel, suffix_kernel

ROWS = 8
"""Positions of a causal tile; the state before each is kept for backward."""


def prefixes(key: Tensor, value: Tensor, runs: Runs) -> tuple[Tensor, Tensor]:
    """(log of the denominator, mean) `b run d` of every run of sources and all before it."""
    d = value.shape[2]
    log, mean = sums(value, runs.count, 2)
    run_kernel[runs.programs(value)](
        key, value, log, mean, value.shape[1], d, *steps(key), *steps(value), runs.count, runs.steps,
        runs.rows, runs.block, num_warps=runs.warps,
    )  # fmt: skip
    prefix_kernel[runs.programs(value, 1)](log, mean, runs.count, d, runs.block, num_warps=1)
    return log, mean


def like(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Unwritten and contiguous."""
    return torch.empty(value.shape, dtype=dtype, device=value.device)


@torch.library.custom_op("aft_lens::scan_simple", mutates_args=())
def scan_simple(query: Tensor | None, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Causal AFT-simple of `b t d`: the output, and (log of the denominator, mean) before every tile, `b tile d`."""
    key, value = channels_last(key), channels_last(value)
    q = value if query is None else channels_last(query)
    runs = Runs.of(value, ROWS)
    y = like(value, value.dtype)
    tile_log, tile_mean = sums(value, runs.tiles, 2)
    log, mean = prefixes(key, value, runs) if runs.count > 1 else sums(value, 0, 2)
    simple_forward_kernel[runs.programs(value)](
        q, key, value, y, log, mean, tile_log, tile_mean, *value.shape[1:], *steps(q), *steps(key), *steps(value),
        runs.count, runs.steps, runs.tiles, runs.rows, runs.block, query is not None,
        num_warps=runs.warps,
    )  # fmt: skip
    return y, tile_log, tile_mean


@scan_simple.register_fake
def _(query, key, value):
    b, t, d = value.shape
    state = value.new_empty(b, (t + ROWS - 1) // ROWS, d, dtype=torch.float32)
    return value.new_empty(b, t, d), state, torch.empty_like(state)


@torch.library.custom_op("aft_lens::scan_simple_backward", mutates_args=())
def scan_simple_backward(
    dy: Tensor, query: Tensor | None, key: Tensor, value: Tensor, tile_log: Tensor, tile_mean: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query (empty without one), key and value."""
    dy, key, value = channels_last(dy), channels_last(key), channels_last(value)
    q = value if query is None else channels_last(query)
    runs = Runs.of(value, ROWS)
    dq, dk, dv = empty_gradients(dy, query, key, value, tile_log, tile_mean)
    state = sums(value, runs.count, 3)

    def launch(summary: bool) -> None:
        simple_backward_kernel[runs.programs(value)](
            dy, q, key, value, tile_log, tile_mean, *state, dq, dk, dv, *value.shape[1:],
            *steps(dy), *steps(q), *steps(key), *steps(value), runs.count, runs.steps, runs.tiles,
            runs.rows, runs.block, query is not None, summary, num_warps=runs.warps,
        )  # fmt: skip

    if runs.count > 1:
        launch(True)
        suffix_kernel[runs.programs(value, 1)](*state, runs.count, value.shape[2], runs.block, num_warps=1)
    launch(False)
    return dq, dk, dv


def empty_gradients(
    dy: Tensor, query: Tensor | None, key: Tensor, value: Tensor, log: Tensor, mean: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Unwritten gradients of query (empty without one), key and value."""
    dq = value.new_empty(0) if query is None else like(value, query.dtype)
    return dq, like(value, key.dtype), like(value, value.dtype)


scan_simple_backward.register_fake(empty_gradients)


def save_all(ctx, inputs, output):
    """Keep the inputs and the sums that the operator returned beside its output."""
    ctx.save_for_backward(*inputs, *output[1:])


def _backward(ctx, dy, *unused):
    dq, dk, dv = scan_simple_backward(dy, *ctx.saved_tensors)
    return None if ctx.saved_tensors[0] is None else dq, dk, dv


scan_simple.register_autograd(_backward, setup_context=save_all)
