"""Fused AFT-conv on small grids, forward: exp, both products, division and gate in one pass (Eq. 6)."""

import triton
import triton.language as tl

from aft_lens.ops.kernels.tiles import bias_tile, head_range, sigmoid


@triton.jit
def expand_kernel(
    W, E,
    T: tl.constexpr, T_PAD: tl.constexpr, GRID_X: tl.constexpr, WIN_Y: tl.constexpr, WIN_X: tl.constexpr,
    WIN_BLOCK: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    """Write e^(w - a), shape `h t t_pad`, 0 for padding sources; one program a head and block of targets."""
    head = tl.program_id(0)
    t = tl.program_id(1) * BLOCK_T + tl.arange(0, BLOCK_T)[:, None]
    s = tl.arange(0, BLOCK_S)[None, :]
    shift, _ = head_range(W, head, WIN_Y * WIN_X, WIN_BLOCK)
    w = bias_tile(W, head, t, s, GRID_X, WIN_Y, WIN_X, T)
    out = tl.exp(w - shift).to(E.dtype.element_ty)
    tl.store(E + (head * T + t).to(tl.int64) * T_PAD + s, out, mask=(t < T) & (s < T_PAD))


@triton.jit
def channel(
    Q, V, Y, QB, VB, e, weight, inverse, head, c, b, s, t, mask_t, C,
    q_b, q_h, q_c, v_b, v_h, v_c, y_b, y_h, y_c,
    T: tl.constexpr, UNIT: tl.constexpr, HAS_QUERY: tl.constexpr, HAS_BIAS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Numerator, division and gate of one channel of a tile."""
    v = tl.load(V + head * v_h + c * v_c + b[:, None] * (v_b * UNIT) + s[None, :], mask=s[None, :] < T, other=0.0)
    y = tl.dot((weight * v.to(tl.float32)).to(e.dtype), e, input_precision=PRECISION) * inverse
    if HAS_BIAS:
        y += tl.load(VB + head * C + c).to(tl.float32)
    if HAS_QUERY:
        place = Q + head * q_h + c * q_c + b[:, None] * (q_b * UNIT) + t[None, :]
        q = tl.load(place, mask=t[None, :] < T, other=0.0).to(tl.float32)
        if HAS_BIAS:
            q += tl.load(QB + head * C + c).to(tl.float32)
        y *= sigmoid(q)
    out = Y + head * y_h + c * y_c + b[:, None] * (y_b * UNIT) + t[None, :]
    tl.store(out, y.to(Y.dtype.element_ty), mask=mask_t)


@triton.jit
def forward_kernel(
    Q, K, V, E, Y, R, M, QB, VB,
    B, C, H,
    q_b, q_h, q_c, k_b, k_h, v_b, v_h, v_c, y_b, y_h, y_c,
    T: tl.constexpr, T_PAD: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_B: tl.constexpr,
    B_STEPS: tl.constexpr, C_PER: tl.constexpr, C_SPLITS: tl.constexpr, UNIT: tl.constexpr, HAS_QUERY: tl.constexpr,
    HAS_BIAS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program a head, block of targets, group of channels and group of batch rows; E stays on chip."""
    T_TILES: tl.constexpr = (T + BLOCK_T - 1) // BLOCK_T
    pid = tl.program_id(0)
    t0 = (pid % T_TILES) * BLOCK_T
    split = (pid // T_TILES) % C_SPLITS
    head = pid // (T_TILES * C_SPLITS)
    s = tl.arange(0, BLOCK_S)
    t = t0 + tl.arange(0, BLOCK_T)
    e = tl.load(
        E + head.to(tl.int64) * T * T_PAD + t[None, :] * T_PAD + s[:, None],
        mask=(t[None, :] < T) & (s[:, None] < T_PAD), other=0.0,
    )  # fmt: skip
    for step in range(B_STEPS):
        b = (tl.program_id(1) * B_STEPS + step) * BLOCK_B + tl.arange(0, BLOCK_B)
        live = b < B
        b = tl.minimum(b, B - 1).to(tl.int64)
        key = tl.load(K + head * k_h + b[:, None] * (k_b * UNIT) + s[None, :], mask=s[None, :] < T, other=float("-inf"))
        key = key.to(tl.float32)
        top = tl.max(key, 1)
        weight = tl.exp(key - top[:, None])
        den = tl.dot(weight.to(e.dtype), e, input_precision=PRECISION)
        den = tl.where(t[None, :] < T, den, 1.0)
        inverse = 1.0 / den
        mask_t = live[:, None] & (t[None, :] < T)
        if split == 0:
            tl.store(R + (head * B + b[:, None]) * T + t[None, :], inverse.to(R.dtype.element_ty), mask=mask_t)
            if t0 == 0:
                tl.store(M + head * B + b, top, mask=live)
        if C_PER == 1:
            channel(
                Q, V, Y, QB, VB, e, weight, inverse, head, split, b, s, t, mask_t, C,
                q_b, q_h, q_c, v_b, v_h, v_c, y_b, y_h, y_c, T, UNIT, HAS_QUERY, HAS_BIAS, PRECISION,
            )  # fmt: skip
        else:
            for i in range(C_PER):
                channel(
                    Q, V, Y, QB, VB, e, weight, inverse, head, split * C_PER + i, b, s, t, mask_t, C,
                    q_b, q_h, q_c, v_b, v_h, v_c, y_b, y_h, y_c, T, UNIT, HAS_QUERY, HAS_BIAS, PRECISION,
                )  # fmt: skip
