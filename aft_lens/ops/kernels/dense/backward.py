"""Fused AFT-conv on small grids, backward.

With y = sigmoid(q) num / den saved, r = 1 / den and s = sigmoid(q):

    dq = dy y (1 - s)           dnum = dy s r            dden = -r sum_c dy y
    G_c = E^T dnum_c            dv = e^k G               dk = sum_c v_c dv_c + e^k E^T dden
    dw = e^(w - a) x the sum along each offset's diagonal of  dnum^T (e^k v) + dden^T e^k
"""

import triton
import triton.language as tl

from aft_lens.ops.kernels.tiles import batch_rows, block, head_range, key_weight, sigmoid, weighted


@triton.jit
def gate_kernel(
    Q, Y, R, QB, VB, DY, DQ, DNUM, DDEN,
    B, C,
    q_b, q_h, q_c, y_b, y_h, y_c, d_b, d_h, d_c,
    T: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_B: tl.constexpr, UNIT: tl.constexpr,
    HAS_QUERY: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """Gradients of query, numerator and denominator; one program a head and block of batch rows.

    DQ and DNUM are laid out `h c b t`, DDEN `h b t`. Strides along the batch are given in steps of UNIT.
    """
    head = tl.program_id(0).to(tl.int64)
    b, row, live = batch_rows(tl.program_id(1), B, BLOCK_B)
    t = tl.arange(0, BLOCK_T)[None, :]
    own = row[:, None] * T + t
    on = live[:, None] & (t < T)
    r = tl.load(R + (head * B + b) * T + own, mask=on, other=0.0).to(tl.float32)
    dden = tl.zeros((BLOCK_B, BLOCK_T), tl.float32)
    for c in range(C):
        dy = block(DY + head * d_h + c * d_c, b, row, d_b, t, on, 0.0, UNIT).to(tl.float32)
        y = block(Y + head * y_h + c * y_c, b, row, y_b, t, on, 0.0, UNIT).to(tl.float32)
        first = ((head * C + c) * B + b) * T
        dnum = dy
        bias = tl.load(VB + head * C + c).to(tl.float32) if HAS_BIAS else 0.0
        if HAS_QUERY:
            q = block(Q + head * q_h + c * q_c, b, row, q_b, t, on, 0.0, UNIT).to(tl.float32)
            if HAS_BIAS:
                q += tl.load(QB + head * C + c).to(tl.float32)
            gate = sigmoid(q)
            dq = dy * y * (1.0 - gate)
            tl.store(DQ + first + own, dq.to(DQ.dtype.element_ty), mask=on)
            dnum *= gate
            y -= bias * gate
        else:
            y -= bias
        dden -= dy * y
        tl.store(DNUM + first + own, (dnum * r).to(DNUM.dtype.element_ty), mask=on)
    tl.store(DDEN + (head * B + b) * T + own, (dden * r).to(DDEN.dtype.element_ty), mask=on)


@triton.jit
def source_kernel(
    K, V, E, M, DNUM, DDEN, DK, DV,
    B, C,
    k_b, k_h, v_b, v_h, v_c,
    T: tl.constexpr, T_PAD: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_B: tl.constexpr,
    B_STEPS: tl.constexpr, UNIT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of key and value; one program a head, block of sources and group of batch rows.

    DV is laid out `h c b t`, DK `h b t`.
    """
    S_TILES: tl.constexpr = (T + BLOCK_S - 1) // BLOCK_S
    pid = tl.program_id(0)
    head = (pid // S_TILES).to(tl.int64)
    t = tl.arange(0, BLOCK_T)
    s = (pid % S_TILES) * BLOCK_S + tl.arange(0, BLOCK_S)
    on_t = t[None, :] < T
    on_s = s[None, :] < T
    e = tl.load(
        E + head * T * T_PAD + t[:, None] * T_PAD + s[None, :],
        mask=(t[:, None] < T) & (s[None, :] < T_PAD), other=0.0,
    )  # fmt: skip
    for step in range(B_STEPS):
        b, row, live = batch_rows(tl.program_id(1) * B_STEPS + step, B, BLOCK_B)
        mask_s = live[:, None] & on_s
        top = tl.load(M + head * B + b + row)[:, None]
        key = block(K + head * k_h, b, row, k_b, s[None, :], on_s, float("-inf"), UNIT)
        weight = key_weight(key, top)
        from_t, from_s = row[:, None] * T + t[None, :], row[:, None] * T + s[None, :]
        dden = tl.load(DDEN + (head * B + b) * T + from_t, mask=on_t, other=0.0)
        dk = tl.dot(dden, e, input_precision=PRECISION)
        for c in range(C):
            first = ((head * C + c) * B + b) * T
            dnum = tl.load(DNUM + first + from_t, mask=on_t, other=0.0)
            v = block(V + head * v_h + c * v_c, b, row, v_b, s[None, :], on_s, 0.0, UNIT)
            mixed = tl.dot(dnum, e, input_precision=PRECISION)
            dk += mixed * v.to(tl.float32)
            tl.store(DV + first + from_s, (mixed * weight).to(DV.dtype.element_ty), mask=mask_s)
        tl.store(DK + (head * B + b) * T + from_s, (dk * weight).to(DK.dtype.element_ty), mask=mask_s)


@triton.jit
def pair_kernel(
    K, V, M, DNUM, DDEN, DE,
    B, C, H,
    k_b, k_h, v_b, v_h, v_c,
    T: tl.constexpr, BLOCK: tl.constexpr, BLOCK_B: tl.constexpr, B_STEPS: tl.constexpr, UNIT: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradient of E summed over a group of batch rows and all channels, DE `split h t s` in float32."""
    TILES: tl.constexpr = (T + BLOCK - 1) // BLOCK
    pid = tl.program_id(0)
    t = (pid % TILES) * BLOCK + tl.arange(0, BLOCK)
    s = (pid // TILES) % TILES * BLOCK + tl.arange(0, BLOCK)
    head = (pid // (TILES * TILES)).to(tl.int64)
    on_s = s[None, :] < T
    total = tl.zeros((BLOCK, BLOCK), tl.float32)
    for step in range(B_STEPS):
        b, row, live = batch_rows(tl.program_id(1) * B_STEPS + step, B, BLOCK_B)
        on_t = live[None, :] & (t[:, None] < T)
        top = tl.load(M + head * B + b + row)[:, None]
        from_t = row[None, :] * T + t[:, None]
        key = block(K + head * k_h, b, row, k_b, s[None, :], on_s, float("-inf"), UNIT)
        dden = tl.load(DDEN + (head * B + b) * T + from_t, mask=on_t, other=0.0)
        weight = key_weight(key, top).to(dden.dtype)
        total = tl.dot(dden, weight, total, input_precision=PRECISION)
        for c in range(C):
            dnum = tl.load(DNUM + ((head * C + c) * B + b) * T + from_t, mask=on_t, other=0.0)
            v = block(V + head * v_h + c * v_c, b, row, v_b, s[None, :], on_s, 0.0, UNIT)
            total = tl.dot(dnum, weighted(weight, v), total, input_precision=PRECISION)
    out = DE + ((tl.program_id(1) * H + head) * T + t[:, None]) * T + s[None, :]
    tl.store(out, total, mask=(t[:, None] < T) & on_s)


@triton.jit
def diagonal_kernel(
    W, DE, DW, SPAN,
    H, SPLITS,
    GRID_Y: tl.constexpr, GRID_X: tl.constexpr, WIN_Y: tl.constexpr, WIN_X: tl.constexpr, WIN_BLOCK: tl.constexpr,
    BLOCK: tl.constexpr, SAFE: tl.constexpr,
):  # fmt: skip
    """dw of a head and row of its window: DE summed over targets, times e^(w - a); 0 in heads beyond SAFE.

    Each head's range is written to SPAN.
    """
    T: tl.constexpr = GRID_Y * GRID_X
    head = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1)
    dy = row - WIN_Y // 2
    shift, span = head_range(W, head, WIN_Y * WIN_X, WIN_BLOCK)
    if row == 0:
        tl.store(SPAN + head, span)
    xt = tl.arange(0, BLOCK)[:, None]
    xs = tl.arange(0, BLOCK)[None, :]
    total = tl.zeros((BLOCK, BLOCK), tl.float32)
    for split in range(SPLITS):
        for y in range(GRID_Y):
            on = (xt < GRID_X) & (xs < GRID_X) & (y + dy >= 0) & (y + dy < GRID_Y)
            pair = (y * GRID_X + xt) * T + (y + dy) * GRID_X + xs
            total += tl.load(DE + (split * H + head) * T * T + pair, mask=on, other=0.0)
    for column in range(WIN_X):
        place = head * WIN_Y * WIN_X + row * WIN_X + column
        on = xs - xt == column - WIN_X // 2
        grad = tl.sum(tl.sum(tl.where(on, total, 0.0), 1), 0) * tl.exp(tl.load(W + place).to(tl.float32) - shift)
        tl.store(DW + place, tl.where(span <= SAFE, grad, 0.0))
