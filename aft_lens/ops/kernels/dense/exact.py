"""AFT-conv for heads whose biases span more than float32 can: every target with its joint maximum.

These run after the fused kernels and overwrite the heads whose range (SPAN) is beyond SAFE. Nearly always there is
none: a program reads all ranges and ends. They are slow, O(T^2) scalar work a head and image, and finite for any input.
"""

import triton
import triton.language as tl

from aft_lens.ops.kernels.tiles import bias_tile, sigmoid


@triton.jit
def exact_slices(SPAN, B, H, HEADS: tl.constexpr, SAFE: tl.constexpr):
    """How many slices of a head and a batch row to look through: none if every head is within SAFE."""
    head = tl.arange(0, HEADS)
    widest = tl.max(tl.load(SPAN + head, mask=head < H, other=0.0), 0)
    return tl.where(widest > SAFE, H * B, 0)


@triton.jit
def exact_forward_kernel(
    Q, K, V, W, SPAN, Y, QB, VB,
    B, C, H,
    q_b, q_h, q_c, k_b, k_h, v_b, v_h, v_c, y_b, y_h, y_c,
    T: tl.constexpr, GRID_X: tl.constexpr, WIN_Y: tl.constexpr, WIN_X: tl.constexpr, HEADS: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_S: tl.constexpr, HAS_QUERY: tl.constexpr, HAS_BIAS: tl.constexpr,
    SAFE: tl.constexpr,
):  # fmt: skip
    """Forward of every num_programs(0)-th pair of head and batch row."""
    for pair in range(tl.program_id(0), exact_slices(SPAN, B, H, HEADS, SAFE), tl.num_programs(0)):
        head, b = (pair // B).to(tl.int64), (pair % B).to(tl.int64)
        if tl.load(SPAN + head) > SAFE:
            s = tl.arange(0, BLOCK_S)[None, :]
            key = tl.load(K + b * k_b + head * k_h + s, mask=s < T, other=0.0).to(tl.float32)
            for t0 in range(0, T, BLOCK_T):
                t = t0 + tl.arange(0, BLOCK_T)
                score = key + bias_tile(W, head, t[:, None], s, GRID_X, WIN_Y, WIN_X, T)
                p = tl.exp(score - tl.max(score, 1)[:, None])
                den = tl.sum(p, 1)
                for c in range(C):
                    v = tl.load(V + b * v_b + head * v_h + c * v_c + s, mask=s < T, other=0.0).to(tl.float32)
                    y = tl.sum(p * v, 1) / den
                    if HAS_BIAS:
                        y += tl.load(VB + head * C + c).to(tl.float32)
                    if HAS_QUERY:
                        q = tl.load(Q + b * q_b + head * q_h + c * q_c + t, mask=t < T, other=0.0).to(tl.float32)
                        if HAS_BIAS:
                            q += tl.load(QB + head * C + c).to(tl.float32)
                        y *= sigmoid(q)
                    tl.store(Y + b * y_b + head * y_h + c * y_c + t, y.to(Y.dtype.element_ty), mask=t < T)


@triton.jit
def exact_backward_kernel(
    Q, K, V, W, SPAN, QB, DY, DK, DV, DW,
    B, C, H,
    q_b, q_h, q_c, k_b, k_h, v_b, v_h, v_c, d_b, d_h, d_c,
    T: tl.constexpr, GRID_X: tl.constexpr, WIN_Y: tl.constexpr, WIN_X: tl.constexpr, HEADS: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_S: tl.constexpr, HAS_QUERY: tl.constexpr, HAS_BIAS: tl.constexpr,
    SAFE: tl.constexpr,
):  # fmt: skip
    """Gradients of key, value and w of every num_programs(0)-th pair of head and batch row.

    DQ of the fused kernel holds already.
    """
    for pair in range(tl.program_id(0), exact_slices(SPAN, B, H, HEADS, SAFE), tl.num_programs(0)):
        head, b = (pair // B).to(tl.int64), (pair % B).to(tl.int64)
        if tl.load(SPAN + head) > SAFE:
            s = tl.arange(0, BLOCK_S)[None, :]
            key = tl.load(K + b * k_b + head * k_h + s, mask=s < T, other=0.0).to(tl.float32)
            dkey = tl.zeros((1, BLOCK_S), tl.float32)
            for t0 in range(0, T, BLOCK_T):
                t = t0 + tl.arange(0, BLOCK_T)
                score = key + bias_tile(W, head, t[:, None], s, GRID_X, WIN_Y, WIN_X, T)
                p = tl.exp(score - tl.max(score, 1)[:, None])
                p = tl.where(t[:, None] < T, p / tl.sum(p, 1)[:, None], 0.0)
                dp = tl.zeros((BLOCK_T, BLOCK_S), tl.float32)
                for c in range(C):
                    v = tl.load(V + b * v_b + head * v_h + c * v_c + s, mask=s < T, other=0.0).to(tl.float32)
                    dm = tl.load(DY + b * d_b + head * d_h + c * d_c + t, mask=t < T, other=0.0).to(tl.float32)
                    if HAS_QUERY:
                        q = tl.load(Q + b * q_b + head * q_h + c * q_c + t, mask=t < T, other=0.0).to(tl.float32)
                        if HAS_BIAS:
                            q += tl.load(QB + head * C + c).to(tl.float32)
                        dm *= sigmoid(q)
                    dp += dm[:, None] * v
                ds = p * (dp - tl.sum(p * dp, 1)[:, None])
                dkey += tl.sum(ds, 0)[None, :]
                y = s // GRID_X - t[:, None] // GRID_X + WIN_Y // 2
                x = s % GRID_X - t[:, None] % GRID_X + WIN_X // 2
                on = (y >= 0) & (y < WIN_Y) & (x >= 0) & (x < WIN_X) & (s < T) & (t[:, None] < T)
                tl.atomic_add(DW + head * WIN_Y * WIN_X + y * WIN_X + x, ds, mask=on)
            tl.store(DK + (head * B + b) * T + s, dkey.to(DK.dtype.element_ty), mask=s < T)
            for c in range(C):
                dv = tl.zeros((1, BLOCK_S), tl.float32)
                for t0 in range(0, T, BLOCK_T):
                    t = t0 + tl.arange(0, BLOCK_T)
                    score = key + bias_tile(W, head, t[:, None], s, GRID_X, WIN_Y, WIN_X, T)
                    p = tl.exp(score - tl.max(score, 1)[:, None])
                    p = tl.where(t[:, None] < T, p / tl.sum(p, 1)[:, None], 0.0)
                    dm = tl.load(DY + b * d_b + head * d_h + c * d_c + t, mask=t < T, other=0.0).to(tl.float32)
                    if HAS_QUERY:
                        q = tl.load(Q + b * q_b + head * q_h + c * q_c + t, mask=t < T, other=0.0).to(tl.float32)
                        if HAS_BIAS:
                            q += tl.load(QB + head * C + c).to(tl.float32)
                        dm *= sigmoid(q)
                    dv += tl.sum(p * dm[:, None], 0)[None, :]
                tl.store(DV + ((head * C + c) * B + b) * T + s, dv.to(DV.dtype.element_ty), mask=s < T)
