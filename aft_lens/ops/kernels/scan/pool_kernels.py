"""AFT-simple that is not causal (Eq. 5), after the sums over all sources: one elementwise pass each way and side.

With y the mean over every source, L the log of its denominator, s = sigmoid(q) and G = sum_t dY_t s_t:

    dq_t = dY_t y s_t (1 - s_t)     dv_s = e^(K_s - L) G     dk_s = dv_s (v_s - y)
"""

import triton
import triton.language as tl

from aft_lens.ops.kernels.scan.state import place_of
from aft_lens.ops.kernels.tiles import sigmoid


@triton.jit
def open_kernel(
    Q, Y, MEAN, T, D, q_b, q_t, TILES,
    ROWS: tl.constexpr, BLOCK_D: tl.constexpr, HAS_QUERY: tl.constexpr,
):  # fmt: skip
    """sigmoid(q) times the mean `b d`."""
    b, tile, d = place_of(TILES, D, BLOCK_D)
    t = tile.to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    on = (t < T) & (d[None, :] < D)
    y = tl.load(MEAN + b * D + d, mask=d < D, other=0.0)[None, :] + tl.zeros((ROWS, BLOCK_D), tl.float32)
    if HAS_QUERY:
        y *= sigmoid(tl.load(Q + b * q_b + t * q_t + d[None, :], mask=on, other=0.0).to(tl.float32))
    tl.store(Y + (b * T + t) * D + d[None, :], y.to(Y.dtype.element_ty), mask=on)


@triton.jit
def open_backward_kernel(
    DY, Q, MEAN, DQ, TOTAL, T, D, y_b, y_t, q_b, q_t, RUNS, STEPS,
    ROWS: tl.constexpr, BLOCK_D: tl.constexpr, HAS_QUERY: tl.constexpr,
):  # fmt: skip
    """dq, and the sum of the mean's gradient over a run of targets, TOTAL `b run d`."""
    b, run, d = place_of(RUNS, D, BLOCK_D)
    y = tl.load(MEAN + b * D + d, mask=d < D, other=0.0)
    total = tl.zeros((BLOCK_D,), tl.float32)
    for step in range(STEPS):
        t = (run.to(tl.int64) * STEPS + step) * ROWS + tl.arange(0, ROWS)[:, None]
        on = (t < T) & (d[None, :] < D)
        g = tl.load(DY + b * y_b + t * y_t + d[None, :], mask=on, other=0.0).to(tl.float32)
        if HAS_QUERY:
            gate = sigmoid(tl.load(Q + b * q_b + t * q_t + d[None, :], mask=on, other=0.0).to(tl.float32))
            g *= gate
            dq = g * y[None, :] * (1.0 - gate)
            tl.store(DQ + (b * T + t) * D + d[None, :], dq.to(DQ.dtype.element_ty), mask=on)
        total += tl.sum(g, 0)
    tl.store(TOTAL + (b * RUNS + run) * D + d, total, mask=d < D)


@triton.jit
def pool_backward_kernel(
    K, V, LOG, MEAN, TOTAL, DK, DV, T, D, k_b, k_t, v_b, v_t, TILES,
    ROWS: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """dk and dv of a tile of sources; TOTAL is G, `b d`."""
    b, tile, d = place_of(TILES, D, BLOCK_D)
    t = tile.to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    on = (t < T) & (d[None, :] < D)
    log = tl.load(LOG + b * D + d, mask=d < D, other=0.0)[None, :]
    mean = tl.load(MEAN + b * D + d, mask=d < D, other=0.0)[None, :]
    total = tl.load(TOTAL + b * D + d, mask=d < D, other=0.0)[None, :]
    k = tl.load(K + b * k_b + t * k_t + d[None, :], mask=on, other=float("-inf")).to(tl.float32)
    v = tl.load(V + b * v_b + t * v_t + d[None, :], mask=on, other=0.0).to(tl.float32)
    dv = tl.exp(k - log) * total
    out = (b * T + t) * D + d[None, :]
    tl.store(DV + out, dv.to(DV.dtype.element_ty), mask=on)
    tl.store(DK + out, (dv * (v - mean)).to(DK.dtype.element_ty), mask=on)
