"""Causal AFT-local as a custom operator: launches of its kernels."""

from dataclasses import dataclass
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from aft_lens.ops.kernels.scan.launch import Runs, block_of, channels_last, steps, sums
from aft_lens.ops.kernels.scan.local_backward import local_bias_kernel, local_far_kernel, local_source_kernel
from aft_lens.ops.kernels.scan.local_exact import exact_bias_kernel, exact_forward_kernel, exact_source_kernel
from aft_lens.ops.kernels.scan.local_forward import local_forward_kernel
from aft_lens.ops.kernels.scan.simple import like, prefixes
from aft_lens.ops.kernels.scan.state import suffix_kernel

CHUNK = 64
"""Positions of a chunk; windows up to CHUNK + 1 reach one chunk back."""
ROWS = 16
"""Positions read at once where a chunk is summed."""
BIAS_PROGRAMS = 264
"""Programs that the gradient of the band should have at least: two for each multiprocessor of an H100."""


@dataclass(frozen=True)
class Cut:
    """Chunks of time and launch options of the kernels that multiply."""

    near: int
    chunks: int
    block_d: int
    exact: dict[str, Any]
    """Options of the kernels without products."""
    options: dict[str, Any]
    """Options of those with them."""

    @classmethod
    def of(cls, value: Tensor, window: int, *, gated: bool) -> "Cut":
        """For values `b t d` and a window of that many offsets, the target itself among them."""
        wide = value.dtype == torch.float32
        block_d = block_of(value.shape[2], smallest=16, widest=32 if wide else 64)
        near = -(-(window - 1) // CHUNK)
        exact = {
            "WINDOW": window, "NEAR": near, "BLOCK": CHUNK, "BLOCK_D": block_d, "HAS_QUERY": gated, "num_warps": 8,
        }  # fmt: skip
        dot = (tl.float32, "tf32x3") if wide else (tl.bfloat16, "tf32")
        options = exact | {"DOT": dot[0], "PRECISION": dot[1], "num_stages": 1}
        return cls(near, -(-value.shape[1] // CHUNK), block_d, exact, options)

    def programs(self, value: Tensor) -> tuple[int]:
        """A program for every batch row, chunk and block of channels."""
        return (value.shape[0] * self.chunks * self.blocks(value),)

    def blocks(self, value: Tensor) -> int:
        """Blocks of channels."""
        return -(-value.shape[2] // self.block_d)


def _flags(value: Tensor, count: int) -> Tensor:
    return torch.empty(count, dtype=torch.int32, device=value.device)


def _tops(band: Tensor) -> Tensor:
    """The largest of 0 and the biases that each target meets, `t`."""
    t, window = band.shape
    position = torch.arange(max(t, window), device=band.device)
    return band.masked_fill(position[:window] > position[:t, None], 0.0).amax(1).clamp(min=0.0).float()


@torch.library.custom_op("aft_lens::scan_local", mutates_args=())
def scan_local(query: Tensor | None, key: Tensor, value: Tensor, band: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Causal AFT-local of `b t d` with biases `t offset` (offset = target - source; 0 beyond them).

    Returns the output, the log of its denominators `b t d`, and (log of the denominator, mean) `b chunk d` of every
    chunk and all before it.
    """
    key, value, band = channels_last(key), channels_last(value), band.contiguous()
    q = value if query is None else channels_last(query)
    cut = Cut.of(value, band.shape[1], gated=query is not None)
    t, d = value.shape[1:]
    log, mean = prefixes(key, value, Runs(ROWS, block_of(d), cut.chunks, CHUNK // ROWS, cut.chunks))
    y, out_log = like(value, value.dtype), like(value, torch.float32)
    grid = cut.programs(value)
    flag = _flags(value, *grid)
    at = (t, d, *steps(q), *steps(key), *steps(value), cut.chunks)
    local_forward_kernel[grid](
        q, key, value, band, _tops(band), log, mean, y, out_log, flag, *at, **cut.options
    )  # fmt: skip
    exact_forward_kernel[grid](q, key, value, band, log, mean, y, out_log, flag, *at, **cut.exact)
    return y, out_log, log, mean


@scan_local.register_fake
def _(query, key, value, band):
    state = value.new_empty(value.shape[0], (value.shape[1] + CHUNK - 1) // CHUNK, value.shape[2], dtype=torch.float32)
    return like(value, value.dtype), like(value, torch.float32), state, torch.empty_like(state)


@torch.library.custom_op("aft_lens::scan_local_backward", mutates_args=())
def scan_local_backward(
    dy: Tensor, query: Tensor | None, key: Tensor, value: Tensor, band: Tensor, y: Tensor, out_log: Tensor, log: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query (empty without one), key, value, and of the band in float32."""
    dy, key, value, band = channels_last(dy), channels_last(key), channels_last(value), band.contiguous()
    q = value if query is None else channels_last(query)
    cut = Cut.of(value, band.shape[1], gated=query is not None)
    b, t, d = value.shape
    dq = value.new_empty(0) if query is None else like(value, query.dtype)
    dk, dv = like(value, key.dtype), like(value, value.dtype)
    at = (*steps(dy), *steps(q), *steps(key), *steps(value), cut.chunks)
    top, grid = _tops(band), cut.programs(value)
    ref, one, two = sums(value, cut.chunks, 3)
    far = {name: option for name, option in cut.exact.items() if name != "WINDOW"}
    local_far_kernel[grid](
        q, y, dy, log, out_log, ref, one, two, t, d, *steps(dy), *steps(q), cut.chunks, **far
    )  # fmt: skip
    block = block_of(d)
    suffix_kernel[(b * -(-d // block),)](ref, one, two, cut.chunks, d, block, num_warps=1)
    flag = _flags(value, *grid)
    local_source_kernel[grid](
        q, key, value, band, top, log, y, dy, out_log, one, two, dq, dk, dv, flag, t, d, *at, **cut.options
    )  # fmt: skip
    exact_source_kernel[grid](
        q, key, value, band, log, y, dy, out_log, one, two, dk, dv, flag, t, d, *at, **cut.exact
    )  # fmt: skip
    tiles = cut.chunks * (cut.near + 1)
    splits = min(b, -(-BIAS_PROGRAMS // tiles))
    parts = torch.zeros(splits, *band.shape, dtype=torch.float32, device=band.device)
    flag = _flags(value, b * cut.blocks(value) * tiles)
    local_bias_kernel[(tiles * splits,)](
        q, key, value, band, top, log, y, dy, out_log, parts, flag, b, t, d, *at, splits, **cut.options
    )  # fmt: skip
    exact_bias_kernel[(tiles * splits,)](
        q, key, value, band, y, dy, out_log, parts, flag, b, t, d, *at, splits, **cut.exact
    )  # fmt: skip
    return dq, dk, dv, parts.sum(0)


@scan_local_backward.register_fake
def _(dy, query, key, value, band, y, out_log, log):
    dq = value.new_empty(0) if query is None else like(value, query.dtype)
    dw = torch.empty(band.shape, dtype=torch.float32, device=band.device)
    return dq, like(value, key.dtype), like(value, value.dtype), dw


def _setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs, *output[:3])


def _backward(ctx, dy, *unused):
    query, _, _, band, *_ = ctx.saved_tensors
    dq, dk, dv, dw = scan_local_backward(dy, *ctx.saved_tensors)
    return None if query is None else dq, dk, dv, dw.to(band.dtype)


scan_local.register_autograd(_backward, setup_context=_setup)
