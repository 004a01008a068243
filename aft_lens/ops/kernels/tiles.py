"""Pieces that several kernels share: the bias of a tile of (target, source) pairs, and exp(K - max)."""

import triton
import triton.language as tl

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
def sigmoid(x):
    """1 / (1 + e^-x) in float32."""
    return 1.0 / (1.0 + tl.exp(-x))
