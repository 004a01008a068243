"""Causal AFT-local (Eq. 4), backward.

With L_t the log of the denominator, p_ts = e^(K_s + w_ts - L_t) <= 1, and g the gradient of the mean y,

    dv_s = sum_t p_ts g_t        dk_s = v_s dv_s - sum_t p_ts g_t y_t        dw_ts = sum p_ts g_t (v_s - y_t)

over the near chunks of targets pair by pair, and over those beyond as sums A and B relative to the sources' own run.
"""

import triton
import triton.language as tl

from aft_lens.ops.kernels.scan.local_tiles import (
    any_of,
    bias_tile,
    pair_of,
    reference,
    source_factor,
    target_factor,
    tile,
)
from aft_lens.ops.kernels.scan.state import FLOOR, place_of
from aft_lens.ops.kernels.tiles import sigmoid


@triton.jit
def target_tile(Q, Y, DY, OUT_LOG, q_t, y_t, t, d, T, D, HAS_QUERY: tl.constexpr):
    """g, g y, sigmoid(q) and L of a tile of targets; the pointers stand at the batch row, Y is the gated output."""
    g = tile(DY, y_t, t, d, T, D, 0.0)
    gy = g * tile(Y, D, t, d, T, D, 0.0)
    gate = tl.zeros_like(g) + 1.0
    if HAS_QUERY:
        gate = sigmoid(tile(Q, q_t, t, d, T, D, 0.0))
        g *= gate
    return g, gy, gate, tile(OUT_LOG, D, t, d, T, D, -FLOOR)


@triton.jit
def local_far_kernel(
    Q, Y, DY, LOG, OUT_LOG, REF, ONE, TWO,
    T, D, y_b, y_t, q_b, q_t, CHUNKS,
    NEAR: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr, HAS_QUERY: tl.constexpr,
):  # fmt: skip
    """A and B of a chunk of targets for the run before its near chunks, whose log goes to REF; `b chunk d`."""
    b, chunk, d = place_of(CHUNKS, D, BLOCK_D)
    on = d < D
    t = (chunk * BLOCK + tl.arange(0, BLOCK))[:, None]
    far = chunk - NEAR - 1
    log = tl.load(LOG + (b * CHUNKS + far) * D + d, mask=on & (far >= 0), other=FLOOR)
    g, gy, _, out_log = target_tile(
        Q + b * q_b, Y + b * T * D, DY + b * y_b, OUT_LOG + b * T * D, q_t, y_t, t, d[None, :], T, D, HAS_QUERY
    )
    share = tl.exp(tl.minimum(log[None, :] - out_log, 0.0))
    place = (b * CHUNKS + chunk) * D + d
    tl.store(REF + place, log, mask=on)
    tl.store(ONE + place, tl.sum(share * g, 0), mask=on)
    tl.store(TWO + place, tl.sum(share * gy, 0), mask=on)


@triton.jit
def far_gradient(k, LOG, ONE, TWO, b, chunk, d, D, CHUNKS, NEAR: tl.constexpr):
    """What the targets beyond the near chunks give a chunk of sources: its shares of A and B."""
    log = tl.load(LOG + (b * CHUNKS + chunk) * D + d, mask=d < D, other=0.0)
    after = (b * CHUNKS + chunk + NEAR + 1) * D + d
    more = (d < D) & (chunk + NEAR + 1 < CHUNKS)
    share = tl.exp(tl.minimum(k - log[None, :], 0.0))
    one = share * tl.load(ONE + after, mask=more, other=0.0)[None, :]
    return one, share * tl.load(TWO + after, mask=more, other=0.0)[None, :]


@triton.jit
def store_sources(DK, DV, v, one, two, s, d, b, T, D):
    """Gradients of key and value from sum p g and sum p g y; s is a column."""
    place = (b * T + s) * D + d[None, :]
    mask = (s < T) & (d < D)[None, :]
    tl.store(DV + place, one.to(DV.dtype.element_ty), mask=mask)
    tl.store(DK + place, (v * one - two).to(DK.dtype.element_ty), mask=mask)


@triton.jit
def local_source_kernel(
    Q, K, V, W, TOP, LOG, Y, DY, OUT_LOG, ONE, TWO, DQ, DK, DV, FLAG,
    T, D, y_b, y_t, q_b, q_t, k_b, k_t, v_b, v_t, CHUNKS,
    WINDOW: tl.constexpr, NEAR: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr, HAS_QUERY: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of query, key and value, `b t d`; one program a chunk (as sources and as targets of dq).

    FLAG is 1 for the programs whose key and value are left to the exact kernel.
    """
    b, chunk, d = place_of(CHUNKS, D, BLOCK_D)
    on = d < D
    s = chunk * BLOCK + tl.arange(0, BLOCK)
    row = b * T * D
    K += b * k_b
    k = tile(K, k_t, s[:, None], d[None, :], T, D, float("-inf"))
    v = tile(V + b * v_b, v_t, s[:, None], d[None, :], T, D, 0.0)
    one, two = far_gradient(k, LOG, ONE, TWO, b, chunk, d, D, CHUNKS, NEAR)
    fails = 0
    for near in range(chunk, tl.minimum(chunk + NEAR + 1, CHUNKS)):
        t = near * BLOCK + tl.arange(0, BLOCK)
        g, gy, gate, out_log = target_tile(
            Q + b * q_b, Y + row, DY + b * y_b, OUT_LOG + row, q_t, y_t, t[:, None], d[None, :], T, D, HAS_QUERY
        )
        if HAS_QUERY:
            mask = (t[:, None] < T) & on[None, :] & (near == chunk)
            dq = (gy * (1.0 - gate)).to(DQ.dtype.element_ty)
            tl.store(DQ + row + t[:, None] * D + d[None, :], dq, mask=mask)
        r = reference(K, LOG + b * CHUNKS * D, near, d, D)
        top = tl.load(TOP + t, mask=t < T, other=0.0)
        inverse, under = target_factor(out_log, top[:, None], r)
        x, _, over = source_factor(k, v, r)
        fails = tl.maximum(fails, tl.maximum(any_of(over), any_of(under)))
        e = tl.exp(bias_tile(W, t[None, :], s[:, None], T, WINDOW) - top[None, :]).to(DOT)
        one += x * tl.dot(e, (g * inverse).to(DOT), input_precision=PRECISION)
        two += x * tl.dot(e, (gy * inverse).to(DOT), input_precision=PRECISION)
    tl.store(FLAG + tl.program_id(0), fails)
    store_sources(DK, DV, v, one, two, s[:, None], d, b, T, D)


@triton.jit
def local_bias_kernel(
    Q, K, V, W, TOP, LOG, Y, DY, OUT_LOG, DW, FLAG,
    B, T, D, y_b, y_t, q_b, q_t, k_b, k_t, v_b, v_t, CHUNKS, SPLITS,
    WINDOW: tl.constexpr, NEAR: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr, HAS_QUERY: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradient of the band summed over every SPLITS-th batch row and all channels, DW `split t offset`.

    FLAG, `b block pair`, is 1 for what is left to the exact kernel.
    """
    chunk, near, split, pair = pair_of(CHUNKS, NEAR)
    blocks = tl.cdiv(D, BLOCK_D)
    t = chunk * BLOCK + tl.arange(0, BLOCK)
    s = near * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK, BLOCK), tl.float32)
    top = tl.load(TOP + t, mask=t < T, other=0.0)
    for image in range(split, B * (near >= 0).to(tl.int32), SPLITS):
        b = image + (split * 0).to(tl.int64)
        row = b * T * D
        for d0 in range(0, D, BLOCK_D):
            d = d0 + tl.arange(0, BLOCK_D)
            k = tile(K + b * k_b, k_t, s[:, None], d[None, :], T, D, float("-inf"))
            v = tile(V + b * v_b, v_t, s[:, None], d[None, :], T, D, 0.0)
            g, gy, _, out_log = target_tile(
                Q + b * q_b, Y + row, DY + b * y_b, OUT_LOG + row, q_t, y_t, t[:, None], d[None, :], T, D, HAS_QUERY
            )
            r = reference(K + b * k_b, LOG + b * CHUNKS * D, chunk, d, D)
            inverse, under = target_factor(out_log, top[:, None], r)
            x, mixed, over = source_factor(k, v, r)
            fails = tl.maximum(any_of(over), any_of(under))
            tl.store(FLAG + (b * blocks + d0 // BLOCK_D) * CHUNKS * (NEAR + 1) + pair, fails)
            keep = tl.where(fails > 0, 0.0, inverse)
            total = tl.dot((g * keep).to(DOT), tl.trans(mixed.to(DOT)), total, input_precision=PRECISION)
            total = tl.dot((-gy * keep).to(DOT), tl.trans(x.to(DOT)), total, input_precision=PRECISION)
    e = tl.exp(bias_tile(W, t[:, None], s[None, :], T, WINDOW) - top[:, None])
    offset = t[:, None] - s[None, :]
    mask = (offset >= 0) & (offset < WINDOW) & (t[:, None] < T) & (s[None, :] >= 0)
    tl.store(DW + (split.to(tl.int64) * T + t[:, None]) * WINDOW + offset, e * total, mask=mask)
