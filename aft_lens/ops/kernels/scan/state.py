"""Sums over runs of sources as the causal kernels carry them: (maximum, numerator, denominator).

A run is added to another relative to their joint maximum, so nothing overflows, nothing that counts underflows, and
no step reads a later source. Stored runs are (log of the denominator, mean). Tiles are `row channel`; keys of -inf
(masked, or past the end) weigh 0.
"""

import triton
import triton.language as tl

FLOOR = tl.constexpr(-1e30)
"""Log of an empty sum: finite, so that two empty runs do not make inf - inf."""


@triton.jit
def place_of(RUNS, D, BLOCK_D: tl.constexpr):
    """Batch row, run (or chunk, or tile) and channels of this program; channels go fastest."""
    blocks = tl.cdiv(D, BLOCK_D)
    pid = tl.program_id(0)
    d = (pid % blocks) * BLOCK_D + tl.arange(0, BLOCK_D)
    return (pid // (blocks * RUNS)).to(tl.int64), (pid // blocks) % RUNS, d


@triton.jit
def join(top, num, den, other_top, other_num, other_den):
    """Numerator and denominator of two runs relative to their joint maximum: one exponential."""
    low = tl.exp(-tl.abs(top - other_top))
    higher = top >= other_top
    one, other = tl.where(higher, 1.0, low), tl.where(higher, low, 1.0)
    return tl.maximum(top, other_top), one * num + other * other_num, one * den + other * other_den


@triton.jit
def include(top, num, den, key, value):
    """The run with one more source, of weight e^key."""
    live = key > FLOOR
    key, value, one = tl.where(live, key, FLOOR), tl.where(live, value, 0.0), tl.where(live, 1.0, 0.0)
    return join(top, num, den, key, value, one)


@triton.jit
def normal(top, num, den):
    """(log of the denominator, mean) of a run; (FLOOR, 0) of an empty one."""
    empty = den == 0.0
    den = tl.where(empty, 1.0, den)
    return tl.where(empty, FLOOR, top + tl.log(den)), num / den


@triton.jit
def run_kernel(
    K, V, LOG, MEAN,
    T, D, k_b, k_t, v_b, v_t, RUNS, STEPS,
    ROWS: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """(log, mean) of every run of STEPS x ROWS sources, `b run d`; one program a run and block of channels."""
    b, run, d = place_of(RUNS, D, BLOCK_D)
    start = run.to(tl.int64) * STEPS * ROWS
    local = tl.arange(0, ROWS)[:, None]
    top = tl.full((BLOCK_D,), FLOOR, tl.float32)
    num = tl.zeros((BLOCK_D,), tl.float32)
    den = tl.zeros((BLOCK_D,), tl.float32)
    for step in range(STEPS):
        t0 = start + step * ROWS
        on = (t0 + local < T) & (d[None, :] < D)
        k = tl.load(K + b * k_b + t0 * k_t + local * k_t + d[None, :], mask=on, other=float("-inf")).to(tl.float32)
        v = tl.load(V + b * v_b + t0 * v_t + local * v_t + d[None, :], mask=on, other=0.0).to(tl.float32)
        new = tl.maximum(top, tl.max(k, 0))
        weight = tl.exp(k - new[None, :])
        fade = tl.exp(top - new)
        num = fade * num + tl.sum(tl.where(weight > 0.0, weight * v, 0.0), 0)
        den = fade * den + tl.sum(weight, 0)
        top = new
    log, mean = normal(top, num, den)
    place = (b * RUNS + run) * D + d
    tl.store(LOG + place, log, mask=d < D)
    tl.store(MEAN + place, mean, mask=d < D)


@triton.jit
def prefix_kernel(LOG, MEAN, RUNS, D, BLOCK_D: tl.constexpr):
    """(log, mean) of each run and all before it, in place."""
    blocks = tl.cdiv(D, BLOCK_D)
    d = (tl.program_id(0) % blocks) * BLOCK_D + tl.arange(0, BLOCK_D)
    place = (tl.program_id(0) // blocks).to(tl.int64) * RUNS * D + d
    top = tl.full((BLOCK_D,), FLOOR, tl.float32)
    num = tl.zeros((BLOCK_D,), tl.float32)
    den = tl.zeros((BLOCK_D,), tl.float32)
    for _ in range(RUNS):
        log = tl.load(LOG + place, mask=d < D, other=FLOOR)
        mean = tl.load(MEAN + place, mask=d < D, other=0.0)
        live = tl.where(log > FLOOR, 1.0, 0.0)
        top, num, den = join(top, num, den, log, live * mean, live)
        log, mean = normal(top, num, den)
        tl.store(LOG + place, log, mask=d < D)
        tl.store(MEAN + place, mean, mask=d < D)
        place += D


@triton.jit
def suffix_kernel(LOG, ONE, TWO, RUNS, D, BLOCK_D: tl.constexpr):
    """ONE and TWO of each run and all after it relative to its LOG (which never falls), in place."""
    blocks = tl.cdiv(D, BLOCK_D)
    d = (tl.program_id(0) % blocks) * BLOCK_D + tl.arange(0, BLOCK_D)
    place = ((tl.program_id(0) // blocks).to(tl.int64) * RUNS + RUNS - 1) * D + d
    log = tl.zeros((BLOCK_D,), tl.float32)
    one = tl.zeros((BLOCK_D,), tl.float32)
    two = tl.zeros((BLOCK_D,), tl.float32)
    for _ in range(RUNS):
        own = tl.load(LOG + place, mask=d < D, other=0.0)
        fade = tl.exp(tl.minimum(own - log, 0.0))
        one = fade * one + tl.load(ONE + place, mask=d < D, other=0.0)
        two = fade * two + tl.load(TWO + place, mask=d < D, other=0.0)
        tl.store(ONE + place, one, mask=d < D)
        tl.store(TWO + place, two, mask=d < D)
        log = own
        place -= D
