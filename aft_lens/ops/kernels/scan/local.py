"""Causal AFT-local as custom operators: launches of its kernels."""

from dataclasses import dataclass
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from aft_lens.ops.kernels.scan.launch import block_of, channels_last, like, prefixes, steps, suffixes, sums
from aft_lens.ops.kernels.scan.local_backward import local_source_kernel, local_target_kernel
from aft_lens.ops.kernels.scan.local_exact import exact_bias_kernel, exact_forward_kernel, exact_source_kernel
from aft_lens.ops.kernels.scan.local_forward import local_careful_kernel, local_forward_kernel
from aft_lens.ops.kernels.scan.local_weights import expand_kernel

CHUNK = 64
"""Positions of a chunk; windows up to CHUNK + 1 reach one chunk back."""
STEP = 32
"""Sources that the forward pass multiplies at once: the fewer, the less it holds in registers."""
EXPANDED_ROWS = 16
"""Targets of a tile of weights that one program writes."""
TARGET_PROGRAMS = 528
"""Programs that the gradient of the band should have at least: four for each of 132 multiprocessors."""
WIDEST, WIDEST_TRAINED = 64, 32
"""Channels of a tile: of the forward pass alone, and where gradients follow."""
WARPS, EXACT_WARPS = 4, 8
"""Warps of the kernels that multiply, and of those that look through the flags."""
EXACT_PROGRAMS = 264
"""Programs that look through the flags: few, as there is seldom one."""


@dataclass(frozen=True)
class Cut:
    """Chunks of time and launch options of the kernels."""

    near: int
    chunks: int
    block_d: int
    blocks: int
    """Of channels."""
    shape: dict[str, Any]
    """What all kernels are compiled for."""
    dots: dict[str, Any]
    """What those that multiply are compiled for besides."""
    dtype: torch.dtype
    """Of the weights."""

    @classmethod
    def of(cls, value: Tensor, window: int, widest: int, *, gated: bool) -> "Cut":
        """For values `b t d` and a window of that many offsets, the target itself among them."""
        wide = value.dtype == torch.float32
        block_d = block_of(value.shape[2], smallest=16, widest=WIDEST_TRAINED if wide else widest)
        near = -(-(window - 1) // CHUNK)
        shape = {"NEAR": near, "BLOCK": CHUNK, "BLOCK_D": block_d, "HAS_QUERY": gated}
        dots = {"DOT": tl.float32, "PRECISION": "tf32x3"} if wide else {"DOT": tl.bfloat16, "PRECISION": "tf32"}
        dtype = torch.float32 if wide else torch.bfloat16
        return cls(
            near,
            -(-value.shape[1] // CHUNK),
            block_d,
            -(-value.shape[2] // block_d),
            shape,
            dots | {"num_stages": 1},
            dtype,
        )

    @property
    def pairs(self) -> int:
        """Near chunks that one program of the band's gradient takes."""
        return min(2, self.near + 1)

    def programs(self, value: Tensor) -> int:
        """A program for every batch row, chunk and block of channels."""
        return value.shape[0] * self.chunks * self.blocks


def _strip(count: int, programs: int) -> int:
    """Flags that each of so many programs looks at, rounded up to a power of two."""
    return 1 << (-(-count // programs) - 1).bit_length()


def _expanded(band: Tensor, cut: Cut) -> tuple[Tensor, Tensor]:
    """e^(w - a_t) of the sources of the near chunks and its own, `t source` up to the end of a chunk, and a_t, `t`."""
    e = torch.empty(cut.chunks * CHUNK, (cut.near + 1) * CHUNK, dtype=cut.dtype, device=band.device)
    top = torch.empty(len(band), dtype=torch.float32, device=band.device)
    expand_kernel[(cut.chunks * (CHUNK // EXPANDED_ROWS), cut.near + 1)](
        band, e, top, *band.shape, cut.near, CHUNK, EXPANDED_ROWS, num_warps=2
    )
    return e, top


def _forward(query: Tensor | None, key: Tensor, value: Tensor, band: Tensor, *, keep: bool) -> tuple[Tensor, ...]:
    """What `scan_local` returns; empty instead of the logs of the denominators unless they are to be kept."""
    key, value, band = channels_last(key), channels_last(value), band.contiguous()
    q = value if query is None else channels_last(query)
    cut = Cut.of(value, band.shape[1], WIDEST_TRAINED if keep else WIDEST, gated=query is not None)
    t, d = value.shape[1:]
    (peak,) = sums(value, cut.chunks, 1)
    log, mean = prefixes(key, value, cut.chunks, CHUNK, peak)
    e, top = _expanded(band, cut)
    y = like(value, value.dtype)
    out_log = like(value, torch.float32) if keep else log.new_empty(0)
    count = cut.programs(value)
    lost = torch.empty(len(value), cut.chunks, cut.blocks, dtype=torch.int32, device=value.device)
    exact = min(count, EXACT_PROGRAMS)
    strides = (*steps(q), *steps(key), *steps(value), cut.chunks)
    at = (q, key, value, e, top, log, mean, peak, y, out_log, lost, t, d, *strides)
    strip = _strip(count, exact)
    options = cut.shape | cut.dots | {"KEEP": keep, "STEP": STEP}
    local_forward_kernel[(count,)](*at, **options, num_warps=WARPS)
    local_careful_kernel[(exact,)](*at, count, **options, STRIP=strip, num_warps=WARPS)
    exact_forward_kernel[(exact,)](
        q, key, value, band, log, mean, y, out_log, lost, t, d, band.shape[1], *strides, count,
        **cut.shape, KEEP=keep, STRIP=strip, num_warps=EXACT_WARPS,
    )  # fmt: skip
    return y, out_log, log, e, top, lost


@torch.library.custom_op("aft_lens::scan_local_inference", mutates_args=())
def scan_local_inference(query: Tensor | None, key: Tensor, value: Tensor, band: Tensor) -> Tensor:
    """Causal AFT-local of `b t d` where no gradient is asked; biases as in `scan_local`."""
    return _forward(query, key, value, band, keep=False)[0]


@scan_local_inference.register_fake
def _(query, key, value, band):
    return like(value, value.dtype)


@torch.library.custom_op("aft_lens::scan_local", mutates_args=())
def scan_local(
    query: Tensor | None, key: Tensor, value: Tensor, band: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Causal AFT-local of `b t d` with biases `t offset` (offset = target - source; 0 beyond them).

    Returns the output, the log of its denominators `b t d`, that of every chunk and all before it `b chunk d`, and
    the weights `t source` with what was taken from each target's biases, `t`, and which blocks of targets are lost.
    """
    y, out_log, log, e, top, lost = _forward(query, key, value, band, keep=True)
    return y, out_log, log, e, top, lost


@scan_local.register_fake
def _(query, key, value, band):
    b, t, d = value.shape
    chunks, near = (t + CHUNK - 1) // CHUNK, (band.shape[1] + CHUNK - 2) // CHUNK
    return (
        like(value, value.dtype),
        like(value, torch.float32),
        value.new_empty(b, chunks, d, dtype=torch.float32),
        value.new_empty(
            chunks * CHUNK, (near + 1) * CHUNK, dtype=torch.float32 if value.dtype == torch.float32 else torch.bfloat16
        ),
        value.new_empty(t, dtype=torch.float32),
        value.new_empty(b, chunks, (d + WIDEST_TRAINED - 1) // WIDEST_TRAINED, dtype=torch.int32),
    )


@torch.library.custom_op("aft_lens::scan_local_backward", mutates_args=())
def scan_local_backward(
    dy: Tensor, query: Tensor | None, key: Tensor, value: Tensor, band: Tensor, y: Tensor, out_log: Tensor, log: Tensor,
    e: Tensor, top: Tensor, lost: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of query (empty without one), key, value, and of the band in float32."""
    dy, key, value, band = channels_last(dy), channels_last(key), channels_last(value), band.contiguous()
    q = value if query is None else channels_last(query)
    cut = Cut.of(value, band.shape[1], WIDEST_TRAINED, gated=query is not None)
    b, t, d = value.shape
    dq = value.new_empty(0) if query is None else like(value, query.dtype)
    dk, dv = like(value, key.dtype), like(value, value.dtype)
    window = band.shape[1]
    strides = (*steps(dy), *steps(q), *steps(key), *steps(value), cut.chunks)
    ref, one, two = sums(value, cut.chunks, 3)

    groups = -(-(cut.near + 1) // cut.pairs)
    splits = min(b * cut.blocks, -(-TARGET_PROGRAMS // (cut.chunks * groups)))
    parts = torch.zeros(splits, *band.shape, dtype=torch.float32, device=band.device)
    grid = (cut.chunks * groups * splits,)
    local_target_kernel[grid](
        q, key, value, e, top, log, y, dy, out_log, lost, ref, one, two, dq, parts, b, t, d, window, *strides, splits,
        **cut.shape, PAIRS=cut.pairs, **cut.dots, num_warps=WARPS,
    )  # fmt: skip
    exact_bias_kernel[grid](
        q, key, value, band, y, dy, out_log, parts, lost, b, t, d, window, *strides, splits,
        **cut.shape, PAIRS=cut.pairs, STRIP=_strip(b * cut.blocks, splits), num_warps=EXACT_WARPS,
    )  # fmt: skip

    suffixes(ref, one, two)
    count = cut.programs(value)
    local_source_kernel[(count,)](
        q, key, value, e, top, log, y, dy, out_log, one, two, dk, dv, t, d, *strides,
        **cut.shape, **cut.dots, num_warps=WARPS,
    )  # fmt: skip
    exact = min(count, EXACT_PROGRAMS)
    exact_source_kernel[(exact,)](
        q, key, value, band, log, y, dy, out_log, one, two, dk, dv, lost, t, d, window, *strides, count,
        **cut.shape, STRIP=_strip(count, exact), num_warps=EXACT_WARPS,
    )  # fmt: skip
    return dq, dk, dv, parts.sum(0)


@scan_local_backward.register_fake
def _(dy, query, key, value, band, y, out_log, log, e, top, lost):
    dq = value.new_empty(0) if query is None else like(value, query.dtype)
    dw = torch.empty(band.shape, dtype=torch.float32, device=band.device)
    return dq, like(value, key.dtype), like(value, value.dtype), dw


def _setup(ctx, inputs, output):
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs, *output)


def _backward(ctx, dy, *unused):
    query, _, _, band, *_ = ctx.saved_tensors
    dq, dk, dv, dw = scan_local_backward(dy, *ctx.saved_tensors)
    return None if query is None else dq, dk, dv, dw.to(band.dtype)


scan_local.register_autograd(_backward, setup_context=_setup)
