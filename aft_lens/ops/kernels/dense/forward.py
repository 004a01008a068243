"""Fused AFT-conv on small grids, forward: exp, both products, division and gate in one pass (Eq. 6)."""

import triton
import triton.language as tl

from aft_lens.ops.kernels.tiles import (
    LOG2_E,
    batch_rows,
    block,
    head_range,
    key_weight,
    power,
    reciprocal,
    sigmoid,
    weighted,
)


@triton.jit
def expand_kernel(
    W, E, SPAN,
    T: tl.constexpr, T_PAD: tl.constexpr, GRID_X: tl.constexpr, WIN_Y: tl.constexpr, WIN_X: tl.constexpr,
    WIN_BLOCK: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    """Write e^(w - a), shape `h t t_pad`, 0 for padding sources, and each head's range to SPAN.

    One program a head and block of targets. Instructions are its limit, not bytes: whatever depends on the target or
    on the source alone is found before they meet.
    """
    head = tl.program_id(0)
    t = tl.program_id(1) * BLOCK_T + tl.arange(0, BLOCK_T)[:, None]
    s = tl.arange(0, BLOCK_S)[None, :]
    shift, span = head_range(W, head, WIN_Y * WIN_X, WIN_BLOCK)
    if tl.program_id(1) == 0:
        tl.store(SPAN + head, span)
    t_y, t_x, s_y, s_x = t // GRID_X - WIN_Y // 2, t % GRID_X - WIN_X // 2, s // GRID_X, s % GRID_X
    # a negative offset is a large unsigned one
    inside = ((s_y - t_y).to(tl.uint32) < WIN_Y) & ((s_x - t_x).to(tl.uint32) < WIN_X)
    place = (s_y * WIN_X + s_x) - (t_y * WIN_X + t_x)
    w = tl.load(W + head * WIN_Y * WIN_X + place, mask=inside, other=0.0).to(tl.float32)
    out = power((w - tl.where(s < T, shift, float("inf"))) * LOG2_E).to(E.dtype.element_ty)
    tl.store(E + (head * T + t).to(tl.int64) * T_PAD + s, out, mask=(t < T) & (s < T_PAD))


@triton.jit
def forward_kernel(
    Q, K, V, E, Y, R, M, QB, VB,
    B,
    q_b, q_h, q_c, k_b, k_h, v_b, v_h, v_c, y_b, y_h, y_c,
    C: tl.constexpr, T: tl.constexpr, T_PAD: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_T: tl.constexpr,
    BLOCK_B: tl.constexpr, B_STEPS: tl.constexpr, UNIT: tl.constexpr, HAS_QUERY: tl.constexpr,
    HAS_BIAS: tl.constexpr, KEEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program a head, block of targets and group of batch rows; E stays on chip.

    R and M, which only gradients need, are written if KEEP.
    """
    T_TILES: tl.constexpr = (T + BLOCK_T - 1) // BLOCK_T
    t0 = (tl.program_id(0) % T_TILES) * BLOCK_T
    head = (tl.program_id(0) // T_TILES).to(tl.int64)
    s = tl.arange(0, BLOCK_S)
    t = t0 + tl.arange(0, BLOCK_T)
    on_s = s[None, :] < T
    on_t = t[None, :] < T
    e = tl.load(E + head * T * T_PAD + (t[None, :] * T_PAD + s[:, None]), mask=on_t & (s[:, None] < T_PAD), other=0.0)
    for step in range(B_STEPS):
        b, row, live = batch_rows(tl.program_id(1) * B_STEPS + step, B, BLOCK_B)
        on = live[:, None] & on_t
        rows = row[:, None]
        key = block(K + head * k_h, b, row, k_b, s[None, :], on_s, float("-inf"), UNIT)
        top = tl.max(key.to(tl.float32), 1)
        weight = key_weight(key, top[:, None]).to(e.dtype)
        den = tl.dot(weight, e, input_precision=PRECISION)
        inverse = reciprocal(tl.where(on_t, den, 1.0))
        if KEEP:
            tl.store(R + (head * B + b) * T + (rows * T + t[None, :]), inverse.to(R.dtype.element_ty), mask=on)
            if t0 == 0:
                tl.store(M + head * B + b + row, top, mask=live)
        for c in range(C):
            v = block(V + head * v_h + c * v_c, b, row, v_b, s[None, :], on_s, 0.0, UNIT)
            y = tl.dot(weighted(weight, v), e, input_precision=PRECISION) * inverse
            if HAS_BIAS:
                y += tl.load(VB + head * C + c).to(tl.float32)
            if HAS_QUERY:
                q = block(Q + head * q_h + c * q_c, b, row, q_b, t[None, :], on_t, 0.0, UNIT).to(tl.float32)
                if HAS_BIAS:
                    q += tl.load(QB + head * C + c).to(tl.float32)
                y *= sigmoid(q)
            place = rows * (y_b * UNIT) + t[None, :]
            tl.store(Y + head * y_h + c * y_c + b * (y_b * UNIT) + place, y.to(Y.dtype.element_ty), mask=on)
