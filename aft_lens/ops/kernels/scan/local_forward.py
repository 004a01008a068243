"""Causal AFT-local (Eq. 4), forward."""

import triton
import triton.language as tl

from aft_lens.ops.kernels.scan.local_tiles import (
    LARGEST,
    SMALLEST,
    any_lost,
    any_of,
    place_number,
    reference,
    tile,
    weight_tile,
)
from aft_lens.ops.kernels.scan.state import FLOOR, HUGEST
from aft_lens.ops.kernels.tiles import key_weight, sigmoid


@triton.jit
def forward_block(
    i, Q, K, V, E, TOP, LOG, MEAN, PEAK, Y, OUT_LOG, LOST,
    T, D: tl.constexpr, q_b, q_t: tl.constexpr, k_b, k_t: tl.constexpr, v_b, v_t: tl.constexpr, CHUNKS,
    NEAR: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr, HAS_QUERY: tl.constexpr,
    KEEP: tl.constexpr, STEP: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr, CAREFUL: tl.constexpr,
):  # fmt: skip
    """A chunk of targets and block of channels, number i, STEP sources at once.

    CAREFUL leaves out sources that must not be multiplied, and changes no bit of the targets that read none of them.
    Without it such a block is not computed, and has 2 in LOST, `b chunk block`.
    """
    b, chunk, d = place_number(i, CHUNKS, D, BLOCK_D)
    on = d < D
    K += b * k_b
    V += b * v_b
    LOG += b * CHUNKS * D
    r = reference(K, LOG, chunk, d, D)
    peak = tl.full((BLOCK_D,), FLOOR, tl.float32)
    for near in range(tl.maximum(0, chunk - NEAR), chunk + 1):
        peak = tl.maximum(peak, tl.load(PEAK + (b * CHUNKS + near) * D + d, mask=on, other=FLOOR))
    over = tl.max(((peak - r <= LARGEST) == 0).to(tl.int32), 0)  # r may be NaN
    if CAREFUL | (over == 0):
        t = (chunk * BLOCK + tl.arange(0, BLOCK))[:, None]
        num = tl.zeros((BLOCK, BLOCK_D), tl.float32)
        den = tl.zeros((BLOCK, BLOCK_D), tl.float32)
        broken = tl.full((BLOCK_D,), 2**30, tl.int32)
        for first in range(tl.maximum(0, chunk - NEAR) * BLOCK, chunk * BLOCK + BLOCK, STEP):
            s = first + tl.arange(0, STEP)
            k = tile(K, k_t, s[:, None], d[None, :], T, D, float("-inf"))
            v = tile(V, v_t, s[:, None], d[None, :], T, D, 0.0)
            e = weight_tile(E, t, s[None, :], chunk, NEAR, BLOCK)
            x = key_weight(k, r[None, :])
            mixed = x * v
            if CAREFUL:
                fits = (k - r[None, :] <= LARGEST) & ((tl.abs(v) < HUGEST) | (x == 0.0))
                x = tl.where(fits, x, 0.0)
                mixed = tl.where(fits & (x > 0.0), mixed, 0.0)
                broken = tl.minimum(broken, tl.min(tl.where(fits, 2**30, s[:, None]), 0))
            num = tl.dot(e, mixed.to(DOT), num, input_precision=PRECISION)
            den = tl.dot(e, x.to(DOT), den, input_precision=PRECISION)
        top = tl.load(TOP + t, mask=t < T, other=0.0)
        far = chunk - NEAR - 1
        far_log = tl.load(LOG + far * D + d, mask=on & (far >= 0), other=FLOOR)
        far_mean = tl.load(MEAN + (b * CHUNKS + far) * D + d, mask=on & (far >= 0), other=0.0)
        old = tl.exp(-top) * tl.exp(tl.minimum(far_log - r, 0.0))[None, :]
        num += old * far_mean[None, :]
        den += old
        mask = (t < T) & on[None, :]
        lost = (den <= SMALLEST) & mask
        if CAREFUL:
            lost = lost | ((t >= broken[None, :]) & mask)
        else:
            tl.store(LOST + i, any_of(lost))
        y = num / den
        if HAS_QUERY:
            y *= sigmoid(tl.load(Q + b * q_b + t * q_t + d[None, :], mask=mask, other=0.0).to(tl.float32))
        place = (b * T + t) * D + d[None, :]
        tl.store(Y + place, tl.where(lost, float("nan"), y).to(Y.dtype.element_ty), mask=mask)
        if KEEP:
            tl.store(OUT_LOG + place, top + r[None, :] + tl.log(den), mask=mask)
    else:
        tl.store(LOST + i, 2)


@triton.jit
def local_forward_kernel(
    Q, K, V, E, TOP, LOG, MEAN, PEAK, Y, OUT_LOG, LOST,
    T, D: tl.constexpr, q_b, q_t: tl.constexpr, k_b, k_t: tl.constexpr, v_b, v_t: tl.constexpr, CHUNKS,
    NEAR: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr, HAS_QUERY: tl.constexpr,
    KEEP: tl.constexpr, STEP: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program a chunk of targets and block of channels, the last first: they are still in the cache.

    E are the weights, TOP is a_t, (LOG, MEAN) `b chunk d` every chunk and all before it, PEAK its largest key. Y and,
    if KEEP, OUT_LOG, the log of each denominator, are laid out `b t d`; what is left to the exact kernel is NaN in Y,
    and its block above 0 in LOST.
    """
    forward_block(
        tl.num_programs(0) - 1 - tl.program_id(0), Q, K, V, E, TOP, LOG, MEAN, PEAK, Y, OUT_LOG, LOST,
        T, D, q_b, q_t, k_b, k_t, v_b, v_t, CHUNKS,
        NEAR, BLOCK, BLOCK_D, HAS_QUERY, KEEP, STEP, DOT, PRECISION, False,
    )  # fmt: skip


@triton.jit
def local_careful_kernel(
    Q, K, V, E, TOP, LOG, MEAN, PEAK, Y, OUT_LOG, LOST,
    T, D: tl.constexpr, q_b, q_t: tl.constexpr, k_b, k_t: tl.constexpr, v_b, v_t: tl.constexpr, CHUNKS, COUNT,
    NEAR: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr, HAS_QUERY: tl.constexpr,
    KEEP: tl.constexpr, STEP: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr, STRIP: tl.constexpr,
):  # fmt: skip
    """The blocks that `local_forward_kernel` left out; a few programs look through all of them."""
    step = tl.num_programs(0)
    for i in range(tl.program_id(0), COUNT * any_lost(LOST, tl.program_id(0), step, COUNT, STRIP), step):
        if tl.load(LOST + i) == 2:
            forward_block(
                i, Q, K, V, E, TOP, LOG, MEAN, PEAK, Y, OUT_LOG, LOST, T, D, q_b, q_t, k_b, k_t, v_b, v_t, CHUNKS,
                NEAR, BLOCK, BLOCK_D, HAS_QUERY, KEEP, STEP, DOT, PRECISION, True,
            )  # fmt: skip
