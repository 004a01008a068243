"""Pieces of the causal AFT-local kernels: tiles of bias and of factored weights, and when factors may be used.

Time is cut into chunks. Targets of chunk i meet the sources of chunks i - NEAR ... i by products with e^(w - a_t)
(a_t: the largest of 0 and the target's biases); sources before that enter as one run (`scan.state`). The sources'
factor is e^(K - r), where r, the log of the sum of e^K over all chunks before i, knows no source of chunk i or later.
A factored pair holds while K <= r + LARGEST and the denominator stays above SMALLEST. Blocks of targets where one does
not are flagged, and what is lost there is computed with joint maxima by the kernels of `scan.local_exact`, a row at a
time; backward leaves flagged blocks to them altogether.
"""

import triton
import triton.language as tl

from aft_lens.ops.kernels.scan.state import FLOOR
from aft_lens.ops.kernels.tiles import sigmoid

LARGEST = tl.constexpr(20.0)
"""Nats a source may stand above the reference; the targets that read one further up are flagged."""
SMALLEST = tl.constexpr(1e-18)
"""Denominators below may have lost terms: factors under 1e-38 are gone, times e^20 and 10^4 sources."""


@triton.jit
def bias_tile(W, t, s, T, WINDOW):
    """w of every pair, -inf for later sources; W is `t offset`, offset = t - s, and ends at WINDOW: 0 beyond."""
    offset = t - s
    w = tl.load(W + t * WINDOW + offset, mask=(offset >= 0) & (offset < WINDOW) & (t < T), other=0.0).to(tl.float32)
    return tl.where(offset >= 0, w, float("-inf"))


@triton.jit
def weight_tile(E, t, s, chunk, NEAR: tl.constexpr, BLOCK: tl.constexpr):
    """e^(w - a_t) of targets t (a column) of a chunk and sources s (a row) of its near chunks."""
    return tl.load(E + t * ((NEAR + 1) * BLOCK) + (s - (chunk - NEAR) * BLOCK))


@triton.jit
def tile(X, x_t, t, d, T, D, OTHER: tl.constexpr):
    """A tile `row channel` in float32 of a batch row that X points at; t is a column, d a row."""
    return tl.load(X + t * x_t + d, mask=(t < T) & (d < D), other=OTHER).to(tl.float32)


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
def reference(K, LOG, chunk, d, D):
    """r of a chunk of targets, `d`: the log of the sum over the chunks before it; the first key in the first.

    K and LOG point at the batch row.
    """
    log = tl.load(LOG + (chunk - 1) * D + d, mask=(d < D) & (chunk > 0), other=FLOOR)
    first = tl.load(K + d, mask=(d < D) & (chunk == 0), other=float("-inf")).to(tl.float32)
    r = tl.maximum(log, first)
    return tl.where(r > FLOOR, r, 0.0)


@triton.jit
def place_number(i, CHUNKS, D, BLOCK_D: tl.constexpr):
    """Batch row, chunk and channels of block i."""
    blocks = tl.cdiv(D, BLOCK_D)
    return (i // (blocks * CHUNKS)).to(tl.int64), (i // blocks) % CHUNKS, (i % blocks) * BLOCK_D + tl.arange(0, BLOCK_D)


@triton.jit
def lost_place(b, chunk, block, CHUNKS, D, BLOCK_D: tl.constexpr):
    """Where the flag of a chunk of targets and block of channels stands in LOST, `b chunk block`."""
    return (b * CHUNKS + chunk) * tl.cdiv(D, BLOCK_D) + block


@triton.jit
def any_lost(LOST, first, step, COUNT, STRIP: tl.constexpr):
    """1 if any block from `first` on, `step` apart, is; STRIP is at least as many as there are."""
    i = first + tl.arange(0, STRIP) * step
    return tl.minimum(tl.max(tl.load(LOST + i, mask=i < COUNT, other=0), 0), 1)


@triton.jit
def target_factor(log, top, r):
    """1 / den of the factored sums, e^(a + r - L); of blocks that are not lost at most 1 / SMALLEST."""
    return tl.exp(top + r[None, :] - log)


@triton.jit
def any_of(flags):
    """1 if any of a tile of flags is set."""
    return tl.max(tl.max(flags.to(tl.int32), 1), 0)
