"""AFT-conv on large grids for heads whose biases span more than float32 can: every target with its joint maximum.

These run after the fused kernels and overwrite the heads whose range is beyond SAFE; for all others a program reads
one number and ends. They are slow, O(T^2) scalar work a head and image, and finite for any input. In such heads A
holds V, R holds the logarithm of den and G the gradient of the mean with minus its product with the mean.
"""

import triton
import triton.language as tl

from aft_lens.ops.kernels.band.pack import strip_position
from aft_lens.ops.kernels.tiles import sigmoid


@triton.jit
def scores(K, W, i, j, GRID_Y: tl.constexpr, GRID_X: tl.constexpr, WIN_Y: tl.constexpr, WIN_X: tl.constexpr):
    """K + w of targets at places i (a column) and sources at places j (a row), and the pairs' places in the window.

    Off the grid -inf, beyond the window place -1. K and W are of one image and head.
    """
    t_y, t_x = strip_position(i, GRID_Y)
    s_y, s_x = strip_position(j, GRID_Y)
    y = s_y - t_y + WIN_Y // 2
    x = s_x - t_x + WIN_X // 2
    here = (s_x < GRID_X) & (t_x < GRID_X)
    inside = here & (y >= 0) & (y < WIN_Y) & (x >= 0) & (x < WIN_X)
    w = tl.load(W + y * WIN_X + x, mask=inside, other=0.0).to(tl.float32)
    key = tl.load(K + s_y * GRID_X + s_x, mask=s_x < GRID_X, other=float("-inf")).to(tl.float32)
    return key + w, tl.where(inside, y * WIN_X + x, -1)


@triton.jit
def shares(
    K, W, LOG, i, j, GRID_Y: tl.constexpr, GRID_X: tl.constexpr, WIN_Y: tl.constexpr, WIN_X: tl.constexpr
):  # fmt: skip
    """What each source weighs in each target's mean, from log den in strips; and the pairs' places in the window."""
    score, place = scores(K, W, i, j, GRID_Y, GRID_X, WIN_Y, WIN_X)
    log = tl.load(LOG + i, mask=strip_position(i, GRID_Y)[1] < GRID_X, other=float("inf"))
    return tl.exp(score - log), place


@triton.jit
def exact_forward_kernel(
    Q, K, W, A, R, Y, RANGE, QB, VB,
    B, C,
    q_b, q_h, q_c, k_b, k_h,
    GRID_Y: tl.constexpr, GRID_X: tl.constexpr, STRIPS: tl.constexpr, WIN_Y: tl.constexpr, WIN_X: tl.constexpr,
    BLOCK: tl.constexpr, HAS_QUERY: tl.constexpr, HAS_BIAS: tl.constexpr, SAFE: tl.constexpr,
):  # fmt: skip
    """Y and log den of one head and every num_programs(1)-th block of targets of its images."""
    T: tl.constexpr = GRID_Y * GRID_X
    POSITIONS: tl.constexpr = STRIPS * GRID_Y * 8
    BLOCKS: tl.constexpr = (POSITIONS + BLOCK - 1) // BLOCK
    head = tl.program_id(0).to(tl.int64)
    if tl.load(RANGE + head * 2 + 1) > SAFE:
        for item in range(tl.program_id(1), B * BLOCKS, tl.num_programs(1)):
            b = item // BLOCKS + head * 0
            i = item % BLOCKS * BLOCK + tl.arange(0, BLOCK)
            keys = K + b * k_b + head * k_h
            bias = W + head * WIN_Y * WIN_X
            top = tl.full((BLOCK,), float("-inf"), tl.float32)
            den = tl.zeros((BLOCK,), tl.float32)
            for start in range(0, POSITIONS, BLOCK):
                j = start + tl.arange(0, BLOCK)[None, :]
                score, _ = scores(keys, bias, i[:, None], j, GRID_Y, GRID_X, WIN_Y, WIN_X)
                higher = tl.maximum(top, tl.max(score, 1))
                den = den * tl.exp(top - higher) + tl.sum(tl.exp(score - higher[:, None]), 1)
                top = higher
            log = top + tl.log(den)
            row, x = strip_position(i, GRID_Y)
            t = row * GRID_X + x
            tl.store(R + (head * B + b) * POSITIONS + i, log, mask=x < GRID_X)
            for c in range(C):
                values = A + ((head * (C + 1) + c) * B + b) * POSITIONS
                y = tl.zeros((BLOCK,), tl.float32)
                for start in range(0, POSITIONS, BLOCK):
                    j = start + tl.arange(0, BLOCK)[None, :]
                    score, _ = scores(keys, bias, i[:, None], j, GRID_Y, GRID_X, WIN_Y, WIN_X)
                    v = tl.load(values + j, mask=j < POSITIONS, other=0.0).to(tl.float32)
                    y += tl.sum(tl.exp(score - log[:, None]) * v, 1)
                if HAS_BIAS:
                    y += tl.load(VB + head * C + c).to(tl.float32)
                if HAS_QUERY:
                    q = tl.load(Q + b * q_b + head * q_h + c * q_c + t, mask=x < GRID_X, other=0.0).to(tl.float32)
                    if HAS_BIAS:
                        q += tl.load(QB + head * C + c).to(tl.float32)
                    y *= sigmoid(q)
                tl.store(Y + ((head * C + c) * B + b) * T + t, y.to(Y.dtype.element_ty), mask=x < GRID_X)


@triton.jit
def exact_backward_kernel(
    K, W, A, G, R, RANGE, DK, DV, DW,
    B, C,
    k_b, k_h,
    GRID_Y: tl.constexpr, GRID_X: tl.constexpr, STRIPS: tl.constexpr, WIN_Y: tl.constexpr, WIN_X: tl.constexpr,
    BLOCK: tl.constexpr, SAFE: tl.constexpr,
):  # fmt: skip
    """Gradients of key, value and w of one head and every num_programs(1)-th block of sources of its images."""
    T: tl.constexpr = GRID_Y * GRID_X
    POSITIONS: tl.constexpr = STRIPS * GRID_Y * 8
    BLOCKS: tl.constexpr = (POSITIONS + BLOCK - 1) // BLOCK
    head = tl.program_id(0).to(tl.int64)
    if tl.load(RANGE + head * 2 + 1) > SAFE:
        for item in range(tl.program_id(1), B * BLOCKS, tl.num_programs(1)):
            b = item // BLOCKS + head * 0
            j = item % BLOCKS * BLOCK + tl.arange(0, BLOCK)[None, :]
            row, x = strip_position(j, GRID_Y)
            s = row * GRID_X + x
            here = x < GRID_X
            keys = K + b * k_b + head * k_h
            bias = W + head * WIN_Y * WIN_X
            logs = R + (head * B + b) * POSITIONS
            image = head * (C + 1) * B + b
            dk = tl.zeros((1, BLOCK), tl.float32)
            for start in range(0, POSITIONS, BLOCK):
                i = start + tl.arange(0, BLOCK)[:, None]
                p, place = shares(keys, bias, logs, i, j, GRID_Y, GRID_X, WIN_Y, WIN_X)
                dp = tl.zeros((BLOCK, BLOCK), tl.float32)
                for c in range(C):
                    channel = (image + c * B) * POSITIONS
                    g = tl.load(G + channel + i, mask=i < POSITIONS, other=0.0).to(tl.float32)
                    dp += g * tl.load(A + channel + j, mask=here, other=0.0).to(tl.float32)
                dp += tl.load(G + (image + C * B) * POSITIONS + i, mask=i < POSITIONS, other=0.0).to(tl.float32)
                ds = p * dp
                dk += tl.sum(ds, 0)[None, :]
                tl.atomic_add(DW + head * WIN_Y * WIN_X + place, ds, mask=place >= 0)
            tl.store(DK + (head * B + b) * T + s, dk.to(DK.dtype.element_ty), mask=here)
            for c in range(C):
                dv = tl.zeros((1, BLOCK), tl.float32)
                for start in range(0, POSITIONS, BLOCK):
                    i = start + tl.arange(0, BLOCK)[:, None]
                    p, _ = shares(keys, bias, logs, i, j, GRID_Y, GRID_X, WIN_Y, WIN_X)
                    g = tl.load(G + (image + c * B) * POSITIONS + i, mask=i < POSITIONS, other=0.0).to(tl.float32)
                    dv += tl.sum(p * g, 0)[None, :]
                tl.store(DV + ((head * C + c) * B + b) * T + s, dv.to(DV.dtype.element_ty), mask=here)
