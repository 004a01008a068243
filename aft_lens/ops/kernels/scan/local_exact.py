"""Causal AFT-local where factored weights fail: every pair with joint maxima, a source or target row at a time.

These run after the fused kernels on what those flagged; all other programs read their flag and end. They are slow,
and right for any finite keys and biases. A source that no target may read with a finite value reaches no other.
"""

import triton
import triton.language as tl

from aft_lens.ops.kernels.scan.local_backward import far_gradient, store_sources, target_tile
from aft_lens.ops.kernels.scan.local_tiles import bias_tile, pair_of, tile
from aft_lens.ops.kernels.scan.state import FLOOR, join, place_of
from aft_lens.ops.kernels.tiles import sigmoid


@triton.jit
def exact_forward_kernel(
    Q, K, V, W, LOG, MEAN, Y, OUT_LOG, FLAG,
    T, D, q_b, q_t, k_b, k_t, v_b, v_t, CHUNKS,
    WINDOW: tl.constexpr, NEAR: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr, HAS_QUERY: tl.constexpr,
):  # fmt: skip
    """Overwrite Y and OUT_LOG where the latter is 1e30; arguments as in `local_forward_kernel`."""
    b, chunk, d = place_of(CHUNKS, D, BLOCK_D)
    if tl.load(FLAG + tl.program_id(0)) > 0:
        on = d < D
        t = (chunk * BLOCK + tl.arange(0, BLOCK))[:, None]
        far = (b * CHUNKS + chunk - NEAR - 1) * D + d
        log = tl.load(LOG + far, mask=on & (chunk > NEAR), other=FLOOR)
        mean = tl.load(MEAN + far, mask=on & (chunk > NEAR), other=0.0)
        top = tl.zeros((BLOCK, BLOCK_D), tl.float32) + log[None, :]
        den = tl.where(top > FLOOR, 1.0, 0.0)
        num = den * mean[None, :]
        for s in range(tl.maximum(0, chunk - NEAR) * BLOCK, tl.minimum(T, chunk * BLOCK + BLOCK)):
            key = tl.load(K + b * k_b + s * k_t + d, mask=on, other=float("-inf")).to(tl.float32)
            value = tl.load(V + b * v_b + s * v_t + d, mask=on, other=0.0).to(tl.float32)
            score = key[None, :] + bias_tile(W, t, s, T, WINDOW)
            live = (t >= s) & ~(key <= FLOOR)[None, :]
            score, value = tl.where(live, score, FLOOR), tl.where(live, value[None, :], 0.0)
            top, num, den = join(top, num, den, score, value, tl.where(live, 1.0, 0.0))
        place = (b * T + t) * D + d[None, :]
        lost = tile(OUT_LOG + b * T * D, D, t, d[None, :], T, D, 0.0) >= -FLOOR
        y = num / den
        if HAS_QUERY:
            y *= sigmoid(tile(Q + b * q_b, q_t, t, d[None, :], T, D, 0.0))
        tl.store(Y + place, y.to(Y.dtype.element_ty), mask=lost)
        tl.store(OUT_LOG + place, top + tl.log(den), mask=lost)


@triton.jit
def exact_source_kernel(
    Q, K, V, W, LOG, Y, DY, OUT_LOG, ONE, TWO, DK, DV, FLAG,
    T, D, y_b, y_t, q_b, q_t, k_b, k_t, v_b, v_t, CHUNKS,
    WINDOW: tl.constexpr, NEAR: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr, HAS_QUERY: tl.constexpr,
):  # fmt: skip
    """Overwrite DK and DV of a chunk of sources; arguments as in `local_source_kernel`."""
    b, chunk, d = place_of(CHUNKS, D, BLOCK_D)
    if tl.load(FLAG + tl.program_id(0)) > 0:
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
    Q, K, V, W, Y, DY, OUT_LOG, DW, FLAG,
    B, T, D, y_b, y_t, q_b, q_t, k_b, k_t, v_b, v_t, CHUNKS, SPLITS,
    WINDOW: tl.constexpr, NEAR: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr, HAS_QUERY: tl.constexpr,
):  # fmt: skip
    """Add what `local_bias_kernel` flagged to DW; arguments as there."""
    chunk, near, split, pair = pair_of(CHUNKS, NEAR)
    blocks = tl.cdiv(D, BLOCK_D)
    t = (chunk * BLOCK + tl.arange(0, BLOCK))[:, None]
    s = (near * BLOCK + tl.arange(0, BLOCK))[None, :]
    for image in range(split, B * (near >= 0).to(tl.int32), SPLITS):
        b = image + (split * 0).to(tl.int64)
        row = b * T * D
        for block in range(blocks):
            if tl.load(FLAG + (b * blocks + block) * CHUNKS * (NEAR + 1) + pair) > 0:
                d = block * BLOCK_D + tl.arange(0, BLOCK_D)
                total = tl.zeros((BLOCK, BLOCK), tl.float32)
                g, gy, _, log = target_tile(
                    Q + b * q_b, Y + row, DY + b * y_b, OUT_LOG + row, q_t, y_t, t, d[None, :], T, D, HAS_QUERY
                )
                for i in range(near * BLOCK, tl.minimum(T, near * BLOCK + BLOCK)):
                    key = tl.load(K + b * k_b + i * k_t + d, mask=d < D, other=float("-inf")).to(tl.float32)
                    value = tl.load(V + b * v_b + i * v_t + d, mask=d < D, other=0.0).to(tl.float32)
                    p = tl.exp(key[None, :] + bias_tile(W, t, i, T, WINDOW) - log)
                    total += tl.where(s == i, tl.sum(p * (g * value[None, :] - gy), 1)[:, None], 0.0)
                offset = t - s
                mask = (offset >= 0) & (offset < WINDOW) & (t < T)
                place = DW + (split.to(tl.int64) * T + t) * WINDOW + offset
                tl.store(place, tl.load(place, mask=mask, other=0.0) + total, mask=mask)
