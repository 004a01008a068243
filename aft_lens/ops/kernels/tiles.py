"""Pieces that several kernels share: the bias of a tile of (target, source) pairs, exp, sigmoid, weighted values."""

import os

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")
"""Whether kernels run in Triton's interpreter, which knows no assembly and multiplies bfloat16 as bits."""
LOG2_E = tl.constexpr(1.4426950408889634)

SAFE_RANGE = 57.0
"""Nats between max(w, 0) and min(w, 0) up to which no denominator can leave float32: e^-57 is 1.7e-25.

With outside="global" every target reads the largest key with a weight of at least e^(min(w, 0) - a), so the
denominator is at least e^-range whatever the keys are. Heads beyond this range take the exact kernels.
"""


@triton.jit
def bias_tile(W, head, t, s, GRID_X: tl.constexpr, WIN_Y: tl.constexpr, WIN_X: tl.constexpr, T: tl.constexpr):
    """w of every pair of t (a column) and s (a row); 0 outside the window, -inf for sources off the grid."""
    y = s // GRID_X - t // GRID_X + WIN_Y // 2
    x = s % GRID_X - t % GRID_X + WIN_X // 2
    inside = (y >= 0) & (y < WIN_Y) & (x >= 0) & (x < WIN_X) & (s < T) & (t < T)
    w = tl.load(W + head * WIN_Y * WIN_X + y * WIN_X + x, mask=inside, other=0.0).to(tl.float32)
    return tl.where(s < T, w, float("-inf"))


@triton.jit
def head_range(W, head, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """a = max(w, 0) of a head, and its distance to min(w, 0)."""
    i = tl.arange(0, BLOCK)
    w = tl.load(W + head * SIZE + i, mask=i < SIZE, other=0.0).to(tl.float32)
    shift = tl.maximum(tl.max(w, 0), 0.0)
    return shift, shift - tl.minimum(tl.min(w, 0), 0.0)


@triton.jit
def batch_rows(block, B, BLOCK_B: tl.constexpr):
    """First batch row of a block in 64 bits, the block's rows from there (the last row again beyond it), and which
    are no repetition: offsets within a block fit 32 bits."""
    first = tl.minimum(block.to(tl.int64) * BLOCK_B, B - 1)
    row = tl.arange(0, BLOCK_B)
    live = block * BLOCK_B + row < B
    return first, tl.minimum(row, (B - 1 - first).to(tl.int32)), live


@triton.jit
def block(X, first, row, x_b, place, on, fill, UNIT: tl.constexpr):
    """Positions `place` (a row) of a block's batch rows; X stands at their channel, x_b counts in UNITs."""
    return tl.load(X + first * (x_b * UNIT) + (row[:, None] * (x_b * UNIT) + place), mask=on, other=fill)


@triton.jit
def power(x):
    """2^x of float32 in one instruction, to two units in the last place; below 2^-126 it is 0."""
    if INTERPRETED:
        return tl.exp2(x)
    return tl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, is_pure=True, pack=1)


@triton.jit
def reciprocal(x):
    """1 / x of float32 in one instruction, to one unit in the last place; of values below 2^-126 it is infinite."""
    if INTERPRETED:
        return 1.0 / x
    return tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, is_pure=True, pack=1)


@triton.jit
def sigmoid(x):
    """1 / (1 + e^-x) in float32."""
    if INTERPRETED:
        return 1.0 / (1.0 + tl.exp(-x))
    return reciprocal(1.0 + power(x * -LOG2_E))


@triton.jit
def key_weight(key, top):
    """e^(key - top) in float32, 0 for keys of -inf."""
    return power((key.to(tl.float32) - top) * LOG2_E)


@triton.jit
def weighted(weight, value):
    """weight x value in the weight's type, as the matrix units take it."""
    if weight.dtype == value.dtype and not INTERPRETED:
        return weight * value
    return (weight.to(tl.float32) * value.to(tl.float32)).to(weight.dtype)
