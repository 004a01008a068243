"""Causal AFT-simple as custom operators: launches of the scan."""

import torch
from torch import Tensor

from aft_lens.ops.kernels.scan.launch import Runs, channels_last, like, prefixes, steps, suffixes, sums
from aft_lens.ops.kernels.scan.simple_kernels import simple_backward_kernel, simple_forward_kernel

ROWS = 8
"""Positions of a causal tile; the state before each is kept for backward."""


def _forward(query: Tensor | None, key: Tensor, value: Tensor, *, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The output and, if they are to be kept, (log of the denominator, mean) before every tile, `b tile d`."""
    key, value = channels_last(key), channels_last(value)
    q = value if query is None else channels_last(query)
    runs = Runs.of(value, ROWS)
    y = like(value, value.dtype)
    tile_log, tile_mean = sums(value, runs.tiles if keep else 0, 2)
    several = runs.count > 1
    log, mean = prefixes(key, value, runs.count, runs.steps * ROWS) if several else sums(value, 0, 2)
    simple_forward_kernel[runs.programs(value)](
        q, key, value, y, log, mean, tile_log, tile_mean, *value.shape[1:], *steps(q), *steps(key), *steps(value),
        runs.count, runs.steps, runs.tiles, runs.rows, runs.block, query is not None, keep, num_warps=runs.warps,
    )  # fmt: skip
    return y, tile_log, tile_mean


@torch.library.custom_op("aft_lens::scan_simple_inference", mutates_args=())
def scan_simple_inference(query: Tensor | None, key: Tensor, value: Tensor) -> Tensor:
    """Causal AFT-simple of `b t d` where no gradient is asked."""
    return _forward(query, key, value, keep=False)[0]


@scan_simple_inference.register_fake
def _(query, key, value):
    return value.new_empty(value.shape)


@torch.library.custom_op("aft_lens::scan_simple", mutates_args=())
def scan_simple(query: Tensor | None, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Causal AFT-simple of `b t d`: the output, and (log of the denominator, mean) before every tile, `b tile d`."""
    return _forward(query, key, value, keep=True)


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
        suffixes(*state)
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
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs, *output[1:])


def _backward(ctx, dy, *unused):
    dq, dk, dv = scan_simple_backward(dy, *ctx.saved_tensors)
    return None if ctx.saved_tensors[0] is None else dq, dk, dv


scan_simple.register_autograd(_backward, setup_context=save_all)
