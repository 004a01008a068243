"""Pieces of the causal AFT-local kernels: tiles of bias and of factored weights, and when factors may be used.

Time is cut into chunks. Targets of chunk i meet the sources of chunks i - NEAR ... i by products with e^(w - a_t)
(a_t: the largest of 0 and the target's biases); sources before that enter as one run (`scan.state`). The sources'
factor is e^(K - r), where r, the log of the sum of e^K over all chunks before i, knows no source of chunk i or later.
A factored pair holds while K <= r + LARGEST and the denominator stays above SMALLEST. What is beyond is flagged, and
computed with joint maxima by the kernels of `scan.local_exact`, a row at a time.
"""

import triton
import triton.language as tl

from aft_lens.ops.kernels.scan.state import FLOOR

LARGEST = tl.constexpr(20.0)
"""Nats a source may stand above the reference; the targets that read one further up are flagged."""
HUGEST = tl.constexpr(1e28)
"""Values beyond might leave float32 when weighted, and infinity times the 0 of an earlier target would be NaN."""
SMALLEST = tl.constexpr(1e-18)
"""Denominators below may have lost terms: factors under 1e-38 are gone, times e^20 and 10^4 sources."""


@triton.jit
def pair_of(CHUNKS, NEAR: tl.constexpr):
    """Chunk of targets, chunk of sources (perhaps before the first), share of the batch and pair of this program."""
    pid = tl.program_id(0)
    pairs = CHUNKS * (NEAR + 1)
    chunk = pid % CHUNKS
    return chunk, chunk - (pid // CHUNKS) % (NEAR + 1), pid // pairs, pid % pairs


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
def source_factor(k, v, r):
    """e^(k - r), the same times v, and which of them must not be multiplied (0 in both)."""
    fits = k - r[None, :] <= LARGEST
    x = tl.where(fits, tl.exp(k - r[None, :]), 0.0)
    fits = fits & ((tl.abs(v) < HUGEST) | (x == 0.0))
    x = tl.where(fits, x, 0.0)
    return x, tl.where(x > 0.0, x * v, 0.0), (~fits).to(tl.int32)


@triton.jit
def target_factor(log, top, r):
    """1 / den of the factored sums, e^(a + r - L), and which of them are too large (0 there)."""
    inverse = tl.exp(top + r[None, :] - log)
    fits = inverse * SMALLEST < 1.0
    return tl.where(fits, inverse, 0.0), (~fits).to(tl.int32)


@triton.jit
def any_of(flags):
    """1 if any of a tile of flags is 1."""
    return tl.max(tl.max(flags, 1), 0)
