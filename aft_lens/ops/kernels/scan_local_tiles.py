"""Pieces of the causal AFT-local kernels: tiles of bias and of factored weights, and when factors may be used.

Time is cut into chunks. Targets of chunk i meet the sources of chunks i - NEAR ... i by products with e^(w - a_t)
(a_t: the largest of 0 and the target's biases); sources before that enter as one run (`scan_state`). The sources'
factor is e^(K - r), where r, the log of the sum of e^K over all chunks before i, knows no source of chunk i or later.
A factored pair is exact while K <= r + LARGEST and the denominator stays above SMALLEST; what is beyond is computed
with joint maxima instead, a row at a time.
"""

import triton
import triton.language as tl

from aft_lens.ops.kernels.scan_state import FLOOR

LARGEST = tl.constexpr(20.0)
"""Nats a source may stand above the reference; a later one's weight is clamped there and multiplied by exactly 0."""
SMALLEST = tl.constexpr(1e-18)
"""Denominators below may have lost terms: factors under 1e-38 are gone, times e^20 and 10^4 sources."""


@triton.jit
def bias_tile(W, t, s, T, WINDOW: tl.constexpr):
    """w of every pair, -inf for later sources; W is `t offset`, offset = t - s, and ends at WINDOW: 0 beyond."""
    offset = t - s
    w = tl.load(W + t * WINDOW + offset, mask=(offset >= 0) & (offset < WINDOW) & (t < T), other=0.0).to(tl.float32)
    return tl.where(offset >= 0, w, float("-inf"))


@triton.jit
def tile(X, x_t, t, d, T, D, OTHER: tl.constexpr):
    """A tile `row channel` in float32 of a batch row that X points at; t is a column, d a row."""
    return tl.load(X + t * x_t + d, mask=(t < T) & (d < D), other=OTHER).to(tl.float32)


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
def source_factor(k, r):
    """e^(k - r), clamped."""
    return tl.exp(tl.minimum(k - r[None, :], LARGEST))


@triton.jit
def target_factor(log, top, r):
    """1 / den of the factored sums: e^(a + r - L)."""
    return tl.exp(top + r[None, :] - log)


@triton.jit
def factors_fail(k, r, inverse):
    """Whether any pair of a tile of sources and one of targets needs joint maxima."""
    over = tl.max(tl.max((k - r[None, :] > LARGEST).to(tl.int32), 1), 0)
    under = tl.max(tl.max((inverse * SMALLEST > 1.0).to(tl.int32), 1), 0)
    return over + under > 0
