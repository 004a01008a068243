"""Rows whose weights span more than float32 can: every target with its joint maximum, every weight written out.

Slow, O(T^2) a row and channel, and finite for any finite input. BLOCK x BLOCK tiles keep the registers few: the
fused kernels that end in these have none to give.
"""

import triton
import triton.language as tl

from aft_lens.ops.kernels.indexed.tiles import kept, kept_bias
from aft_lens.ops.kernels.tiles import sigmoid


@triton.jit
def scores(
    K, W, OFFSET, head, t, s, T: tl.constexpr, GRID_X: tl.constexpr, DIMS: tl.constexpr, KEEP: tl.constexpr
):  # fmt: skip
    """K_s + w_ts of targets t (a column) and sources s (a row); K points at the row of keys."""
    key = tl.load(K + s, mask=s < T, other=0.0).to(tl.float32)
    return key + kept_bias(W, OFFSET, head, t, s, T, GRID_X, DIMS, KEEP)


@triton.jit
def denominator(
    K, W, OFFSET, head, t, T: tl.constexpr, GRID_X: tl.constexpr, DIMS: tl.constexpr, KEEP: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """m = max_s K_s + w_ts of a column of targets, and 1 / sum_s e^(K_s + w_ts - m)."""
    top = tl.full((BLOCK, 1), float("-inf"), tl.float32)
    for s0 in range(0, T, BLOCK):
        score = scores(K, W, OFFSET, head, t, s0 + tl.arange(0, BLOCK)[None, :], T, GRID_X, DIMS, KEEP)
        top = tl.maximum(top, tl.max(score, 1)[:, None])
    den = tl.zeros((BLOCK, 1), tl.float32)
    for s0 in range(0, T, BLOCK):
        score = scores(K, W, OFFSET, head, t, s0 + tl.arange(0, BLOCK)[None, :], T, GRID_X, DIMS, KEEP)
        den += tl.sum(tl.exp(score - top), 1)[:, None]
    return top, 1.0 / den


@triton.jit
def weights(
    K, W, OFFSET, head, t, s, TOP, INVERSE, T: tl.constexpr, GRID_X: tl.constexpr, DIMS: tl.constexpr,
    KEEP: tl.constexpr,
):  # fmt: skip
    """Weights of sources at targets, 0 for targets past the last, from what `denominator` left in memory."""
    top = tl.load(TOP + t, mask=t < T, other=float("inf"))
    score = scores(K, W, OFFSET, head, t, s, T, GRID_X, DIMS, KEEP)
    return tl.exp(score - top) * tl.load(INVERSE + t, mask=t < T, other=0.0)


@triton.jit
def weighted_mean(
    K, V, W, OFFSET, head, t, top, inverse, T: tl.constexpr, GRID_X: tl.constexpr, DIMS: tl.constexpr,
    KEEP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Weighted mean of one channel's values at a column of targets; V points at the channel's row."""
    total = tl.zeros((BLOCK, 1), tl.float32)
    for s0 in range(0, T, BLOCK):
        s = s0 + tl.arange(0, BLOCK)[None, :]
        weight = tl.exp(scores(K, W, OFFSET, head, t, s, T, GRID_X, DIMS, KEEP) - top)
        total += tl.sum(weight * tl.load(V + s, mask=s < T, other=0.0).to(tl.float32), 1)[:, None]
    return total * inverse


@triton.jit
def exact_row(
    Q, K, V, W, OFFSET, Y, QB, VB, head, b, first, C,
    q_b, q_h, q_c, k_b, k_h, v_b, v_h, v_c, y_b, y_h, y_c,
    T: tl.constexpr, GRID_X: tl.constexpr, DIMS: tl.constexpr, KEEP: tl.constexpr, C_PER: tl.constexpr,
    HAS_QUERY: tl.constexpr, HAS_BIAS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Forward of one batch row and head, C_PER channels from `first`."""
    key = K + head * k_h + b * k_b
    for t0 in range(0, T, BLOCK):
        t = t0 + tl.arange(0, BLOCK)[:, None]
        top, inverse = denominator(key, W, OFFSET, head, t, T, GRID_X, DIMS, KEEP, BLOCK)
        for c in range(first, first + C_PER):
            value = V + head * v_h + c * v_c + b * v_b
            y = weighted_mean(key, value, W, OFFSET, head, t, top, inverse, T, GRID_X, DIMS, KEEP, BLOCK)
            if HAS_BIAS:
                y += tl.load(VB + head * C + c).to(tl.float32)
            if HAS_QUERY:
                q = tl.load(Q + head * q_h + c * q_c + b * q_b + t, mask=t < T, other=0.0).to(tl.float32)
                if HAS_BIAS:
                    q += tl.load(QB + head * C + c).to(tl.float32)
                y *= sigmoid(q)
            tl.store(Y + head * y_h + c * y_c + b * y_b + t, y.to(Y.dtype.element_ty), mask=t < T)


@triton.jit
def upstream(
    Q, QB, DY, head, b, c, C, t, q_b, q_h, q_c, d_b, d_h, d_c, T: tl.constexpr, HAS_QUERY: tl.constexpr,
    HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """dy of a column of targets, 0 past the last, and sigmoid(q) (1 without a query)."""
    dy = tl.load(DY + head * d_h + c * d_c + b * d_b + t, mask=t < T, other=0.0).to(tl.float32)
    if HAS_QUERY:
        q = tl.load(Q + head * q_h + c * q_c + b * q_b + t, mask=t < T, other=0.0).to(tl.float32)
        if HAS_BIAS:
            q += tl.load(QB + head * C + c).to(tl.float32)
        gate = sigmoid(q)
    else:
        gate = tl.full(dy.shape, 1.0, tl.float32)
    return dy, gate


@triton.jit
def exact_backward_kernel(
    Q, K, V, W, OFFSET, STATS, QB, VB, DY, DQ, DK, DV, DW, SPARE,
    B, C, COLUMNS,
    q_b, q_h, q_c, k_b, k_h, v_b, v_h, v_c, d_b, d_h, d_c,
    T: tl.constexpr, GRID_X: tl.constexpr, DIMS: tl.constexpr, KEEP: tl.constexpr, KEEP_BLOCK: tl.constexpr,
    BLOCK_B: tl.constexpr, HAS_QUERY: tl.constexpr, HAS_BIAS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """All gradients of the rows of one head that STATS marks, every num_programs(1)-th of them.

    With p = e^(K_s + w_ts) / den_t and do = dy sigmoid(q): dv_s = sum_t p do_t, and with D_t = sum_c do o the
    gradient of a score is p (sum_c do v - D_t). SPARE, `h program 3 t`, holds max score, 1 / den and D of the
    row at hand. DW's last num_programs(1) of COLUMNS take the sums for w, 0 where no row is marked.
    """
    head = tl.program_id(0).to(tl.int64)
    programs = tl.num_programs(1)
    rows = tl.arange(0, BLOCK_B) * programs + tl.program_id(1)
    totals = STATS + (head * (C + 2) + C + 1) * B
    marked = tl.load(totals + rows, mask=rows < B, other=1.0) < 0.0
    slot = tl.arange(0, KEEP_BLOCK)
    dw = tl.zeros((KEEP_BLOCK,), tl.float32)
    if tl.max(marked.to(tl.int32), 0) > 0:
        tops = SPARE + (head * programs + tl.program_id(1)) * (3 * T)
        inverses = tops + T
        shares = tops + 2 * T
        for row in range(tl.program_id(1), B, programs):
            if tl.load(totals + row) < 0.0:
                b = row + (tl.program_id(1) * 0).to(tl.int64)  # 64-bit places in any tensor
                key = K + head * k_h + b * k_b
                for t0 in range(0, T, BLOCK):
                    t = t0 + tl.arange(0, BLOCK)[:, None]
                    top, inverse = denominator(key, W, OFFSET, head, t, T, GRID_X, DIMS, KEEP, BLOCK)
                    d = tl.zeros((BLOCK, 1), tl.float32)
                    for c in range(C):
                        value = V + head * v_h + c * v_c + b * v_b
                        o = weighted_mean(key, value, W, OFFSET, head, t, top, inverse, T, GRID_X, DIMS, KEEP, BLOCK)
                        dy, gate = upstream(
                            Q, QB, DY, head, b, c, C, t, q_b, q_h, q_c, d_b, d_h, d_c, T, HAS_QUERY, HAS_BIAS
                        )  # fmt: skip
                        d += dy * gate * o
                        if HAS_QUERY:
                            bias = tl.load(VB + head * C + c).to(tl.float32) if HAS_BIAS else 0.0
                            dq = dy * (o + bias) * gate * (1.0 - gate)
                            tl.store(DQ + ((head * C + c) * B + b) * T + t, dq.to(DQ.dtype.element_ty), mask=t < T)
                    tl.store(tops + t, top, mask=t < T)
                    tl.store(inverses + t, inverse, mask=t < T)
                    tl.store(shares + t, d, mask=t < T)
                tl.debug_barrier()
                for s0 in range(0, T, BLOCK):
                    s = s0 + tl.arange(0, BLOCK)[None, :]
                    dk = tl.zeros((1, BLOCK), tl.float32)
                    for t0 in range(0, T, BLOCK):
                        t = t0 + tl.arange(0, BLOCK)[:, None]
                        p = weights(key, W, OFFSET, head, t, s, tops, inverses, T, GRID_X, DIMS, KEEP)
                        ds = tl.zeros((BLOCK, BLOCK), tl.float32) - tl.load(shares + t, mask=t < T, other=0.0)
                        for c in range(C):
                            v = tl.load(V + head * v_h + c * v_c + b * v_b + s, mask=s < T, other=0.0).to(tl.float32)
                            dy, gate = upstream(
                                Q, QB, DY, head, b, c, C, t, q_b, q_h, q_c, d_b, d_h, d_c, T, HAS_QUERY, HAS_BIAS
                            )  # fmt: skip
                            ds += dy * gate * v
                        ds *= p
                        dk += tl.sum(ds, 0)[None, :]
                        for i in tl.static_range(KEEP):
                            match = kept(OFFSET, head, i, t, s, T, GRID_X, DIMS, KEEP)
                            dw += tl.where(slot == i, tl.sum(tl.sum(tl.where(match, ds, 0.0), 1), 0), 0.0)
                    tl.store(DK + (head * B + b) * T + s, dk.to(DK.dtype.element_ty), mask=s < T)
                    for c in range(C):
                        dv = tl.zeros((1, BLOCK), tl.float32)
                        for t0 in range(0, T, BLOCK):
                            t = t0 + tl.arange(0, BLOCK)[:, None]
                            p = weights(key, W, OFFSET, head, t, s, tops, inverses, T, GRID_X, DIMS, KEEP)
                            dy, gate = upstream(
                                Q, QB, DY, head, b, c, C, t, q_b, q_h, q_c, d_b, d_h, d_c, T, HAS_QUERY, HAS_BIAS
                            )  # fmt: skip
                            dv += tl.sum(p * (dy * gate), 0)[None, :]
                        tl.store(DV + ((head * C + c) * B + b) * T + s, dv.to(DV.dtype.element_ty), mask=s < T)
                tl.debug_barrier()  # before the next row takes SPARE
    column = COLUMNS - programs + tl.program_id(1)
    tl.store(DW + (head * KEEP + slot) * COLUMNS + column, dw, mask=slot < KEEP)
