"""Causal AFT-local where factored weights fail: every pair with joint maxima, a source or target row at a time.

These run after the fused kernels on the blocks that the forward pass flagged; a few programs look through all flags.
They are slow, and right for any finite keys and biases. A source that no target may read with a finite value reaches no
other.
"""

import triton
import triton.language as tl

from aft_lens.ops.kernels.scan.local_backward import far_gradient, share_of, store_sources
from aft_lens.ops.kernels.scan.local_tiles import any_lost, bias_tile, lost_place, place_number, target_tile, tile
from aft_lens.ops.kernels.scan.state import FLOOR, join, mean_of
from aft_lens.ops.kernels.tiles import sigmoid


@triton.jit
def exact_forward_kernel(
    Q, K, V, W, LOG, MEAN, Y, OUT_LOG, LOST,
    T, D, WINDOW, q_b, q_t, k_b, k_t, v_b, v_t, CHUNKS, COUNT,
    NEAR: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr, HAS_QUERY: tl.constexpr,
    KEEP: tl.constexpr, STRIP: tl.constexpr,
):  # fmt: skip
    """Overwrite Y and OUT_LOG where the former is NaN; arguments as in `local_forward_kernel`."""
    step = tl.num_programs(0)
    stop = COUNT * any_lost(LOST, tl.program_id(0), step, COUNT, STRIP)
    for i in range(tl.program_id(0), stop, step):
        if tl.load(LOST + i) > 0:
            b, chunk, d = place_number(i, CHUNKS, D, BLOCK_D)
            on = d < D
            t = (chunk * BLOCK + tl.arange(0, BLOCK))[:, None]
            far = (b * CHUNKS + chunk - NEAR - 1) * D + d
            log = tl.load(LOG + far, mask=on & (chunk > NEAR), other=FLOOR)
            mean = tl.load(MEAN + far, mask=on & (chunk > NEAR), other=0.0)
            top = tl.zeros((BLOCK, BLOCK_D), tl.float32) + log[None, :]
            den = tl.where(top == FLOOR, 0.0, 1.0)
            num = den * mean[None, :]
            for s in range(tl.maximum(0, chunk - NEAR) * BLOCK, tl.minimum(T, chunk * BLOCK + BLOCK)):
                key = tl.load(K + b * k_b + s * k_t + d, mask=on, other=float("-inf")).to(tl.float32)
                value = tl.load(V + b * v_b + s * v_t + d, mask=on, other=0.0).to(tl.float32)
                score = key[None, :] + bias_tile(W, t, s, T, WINDOW)
                live = (t >= s) & ~(score <= FLOOR)
                score, value = tl.where(live, score, FLOOR), tl.where(live, value[None, :], 0.0)
                top, num, den = join(top, num, den, score, value, tl.where(live, 1.0, 0.0))
            place = (b * T + t) * D + d[None, :]
            mask = (t < T) & on[None, :]
            before = tl.load(Y + place, mask=mask, other=0.0)
            lost = mask & (before != before)
            y = mean_of(num, den)
            if HAS_QUERY:
                y *= sigmoid(tile(Q + b * q_b, q_t, t, d[None, :], T, D, 0.0))
            tl.store(Y + place, y.to(Y.dtype.element_ty), mask=lost)
            if KEEP:  # a target that reads nothing has no share in any gradient
                tl.store(OUT_LOG + place, tl.where(den == 0.0, -FLOOR, top + tl.log(den)), mask=lost)


@triton.jit
def exact_source_kernel(
    Q, K, V, W, LOG, Y, DY, OUT_LOG, ONE, TWO, DK, DV, LOST,
    T, D, WINDOW, y_b, y_t, q_b, q_t, k_b, k_t, v_b, v_t, CHUNKS, COUNT,
    NEAR: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr, HAS_QUERY: tl.constexpr, STRIP: tl.constexpr,
):  # fmt: skip
    """Overwrite DK and DV of the sources that a lost block of targets reads; arguments as in `local_source_kernel`."""
    step = tl.num_programs(0)
    blocks = tl.cdiv(D, BLOCK_D)
    any_is = 0
    for near in range(NEAR + 1):
        any_is = tl.maximum(any_is, any_lost(LOST, tl.program_id(0) + near * blocks, step, COUNT, STRIP))
    for i in range(tl.program_id(0), COUNT * any_is, step):
        b, chunk, d = place_number(i, CHUNKS, D, BLOCK_D)
        lost = 0
        for near in range(chunk, tl.minimum(chunk + NEAR + 1, CHUNKS)):
            lost = tl.maximum(lost, tl.load(LOST + i + (near - chunk) * blocks))
        if lost > 0:
            on = d < D
            s = (chunk * BLOCK + tl.arange(0, BLOCK))[:, None]
            row = b * T * D
            k = tile(K + b * k_b, k_t, s, d[None, :], T, D, float("-inf"))
            v = tile(V + b * v_b, v_t, s, d[None, :], T, D, 0.0)
            one, two = far_gradient(k, LOG, ONE, TWO, b, chunk, d, D, CHUNKS, NEAR)
            for t in range(chunk * BLOCK, tl.minimum(T, (chunk + NEAR + 1) * BLOCK)):
                g = tl.load(DY + b * y_b + t * y_t + d, mask=on, other=0.0).to(tl.float32)
                gy = g * tl.load(Y + row + t * D + d, mask=on, other=0.0).to(tl.float32)
                if HAS_QUERY:
                    g *= sigmoid(tl.load(Q + b * q_b + t * q_t + d, mask=on, other=0.0).to(tl.float32))
                own = tl.load(OUT_LOG + row + t * D + d, mask=on, other=0.0)
                p = tl.exp(k + bias_tile(W, t, s, T, WINDOW) - own[None, :])
                one += p * g[None, :]
                two += p * gy[None, :]
            store_sources(DK, DV, v, one, two, s, d, b, T, D)


@triton.jit
def exact_bias_kernel(
    Q, K, V, W, Y, DY, OUT_LOG, DW, LOST,
    B, T, D, WINDOW, y_b, y_t, q_b, q_t, k_b, k_t, v_b, v_t, CHUNKS, SPLITS,
    NEAR: tl.constexpr, PAIRS: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr, HAS_QUERY: tl.constexpr,
    STRIP: tl.constexpr,
):  # fmt: skip
    """Add the lost blocks' share to DW; arguments, programs and blocks of channels as in `local_target_kernel`."""
    chunk, group, split = share_of(tl.program_id(0), CHUNKS, tl.cdiv(NEAR + 1, PAIRS))
    blocks = tl.cdiv(D, BLOCK_D)
    t = (chunk * BLOCK + tl.arange(0, BLOCK))[:, None]
    own = split + tl.arange(0, STRIP) * SPLITS
    flags = LOST + lost_place(own // blocks, chunk, own % blocks, CHUNKS, D, BLOCK_D)
    stop = B * blocks * tl.minimum(tl.max(tl.load(flags, mask=own < B * blocks, other=0), 0), 1)
    for i in range(split, stop, SPLITS):
        b = (i // blocks).to(tl.int64)
        lost = tl.minimum(tl.load(LOST + lost_place(b, chunk, i % blocks, CHUNKS, D, BLOCK_D)), 1)
        for near in range(group * PAIRS, tl.minimum(group * PAIRS + PAIRS, tl.minimum(NEAR, chunk) + 1) * lost):
            row = b * T * D
            first = (chunk - near) * BLOCK
            s = (first + tl.arange(0, BLOCK))[None, :]
            d = (i % blocks) * BLOCK_D + tl.arange(0, BLOCK_D)
            total = tl.zeros((BLOCK, BLOCK), tl.float32)
            g, gy, _, log = target_tile(
                Q + b * q_b, Y + row, DY + b * y_b, OUT_LOG + row, q_t, y_t, t, d[None, :], T, D, HAS_QUERY
            )
            for j in range(first, tl.minimum(T, first + BLOCK)):
                key = tl.load(K + b * k_b + j * k_t + d, mask=d < D, other=float("-inf")).to(tl.float32)
                value = tl.load(V + b * v_b + j * v_t + d, mask=d < D, other=0.0).to(tl.float32)
                p = tl.exp(key[None, :] + bias_tile(W, t, j, T, WINDOW) - log)
                total += tl.where(s == j, tl.sum(p * (g * value[None, :] - gy), 1)[:, None], 0.0)
            offset = t - s
            mask = (offset >= 0) & (offset < WINDOW) & (t < T)
            place = DW + (split.to(tl.int64) * T + t) * WINDOW + offset
            tl.store(place, tl.load(place, mask=mask, other=0.0) + total, mask=mask)
