"""Sums over runs of sources as the causal kernels carry them: (maximum, numerator, denominator).

A run is added to another relative to their joint maximum, so nothing overflows, nothing that counts underflows, and
no step reads a later source. Stored runs are (log of the denominator, mean). Tiles are `row channel`; keys of -inf
(masked, or past the end) weigh 0.
"""

import triton
import triton.language as tl

from aft_lens.ops.kernels.tiles import key_weight

FLOOR = tl.constexpr(-1e30)
"""Log of an empty sum: finite, so that two empty runs do not make inf - inf."""
AT_ONCE = tl.constexpr(16)
"""Rows that are loaded together before they are taken in turn."""
HUGEST = tl.constexpr(1e28)
"""Values beyond might leave float32 when weighted, and infinity times the 0 of an earlier target would be NaN."""


@triton.jit
def place_of(RUNS, D, BLOCK_D: tl.constexpr, LAST_FIRST: tl.constexpr = False):
    """Batch row, run (or chunk, or tile) and channels of this program; channels go fastest.

    LAST_FIRST turns the order round: a second pass then starts with what the first left in the cache.
    """
    blocks = tl.cdiv(D, BLOCK_D)
    pid = tl.program_id(0)
    if LAST_FIRST:
        pid = tl.num_programs(0) - 1 - pid
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
    live = ~(key <= FLOOR)  # a NaN is, and makes the sums NaN from here on
    key, value, one = tl.where(live, key, FLOOR), tl.where(live, value, 0.0), tl.where(live, 1.0, 0.0)
    return join(top, num, den, key, value, one)


@triton.jit
def mean_of(num, den):
    """num / den; 0 where there is no source."""
    return tl.where(den == 0.0, 0.0, num / tl.where(den == 0.0, 1.0, den))


@triton.jit
def normal(top, num, den):
    """(log of the denominator, mean) of a run; (FLOOR, 0) of an empty one."""
    empty = den == 0.0
    den = tl.where(empty, 1.0, den)
    return tl.where(empty, FLOOR, top + tl.log(den)), num / den


@triton.jit
def with_row(rows, new):
    """The tuple and one more row."""
    return rows + (new,)  # noqa: RUF005 - Triton has no starred expressions


@triton.jit
def load_rows(X, step, left, on, ROWS: tl.constexpr, OTHER: tl.constexpr):
    """ROWS rows as a tuple; X points at the first, they are `step` apart, OTHER past the `left` that there are."""
    rows = ()
    for i in tl.static_range(ROWS):
        rows = with_row(rows, tl.load(X + i * step, mask=on & (i < left), other=OTHER))
    return rows


@triton.jit
def run_kernel(
    K, V, LOG, MEAN, PEAK,
    T, D: tl.constexpr, k_b, k_t: tl.constexpr, v_b, v_t: tl.constexpr, RUNS, LENGTH,
    BLOCK_D: tl.constexpr, WITH_PEAK: tl.constexpr,
):  # fmt: skip
    """(log, mean) of every run of LENGTH sources, `b run d`; one program a run and block of channels.

    WITH_PEAK writes the largest key to PEAK, infinity where a key or a value is not finite or a value huge.
    """
    b, run, d = place_of(RUNS, D, BLOCK_D)
    on = d < D
    start = run.to(tl.int64) * LENGTH
    top = tl.full((BLOCK_D,), FLOOR, tl.float32)
    num = tl.zeros((BLOCK_D,), tl.float32)
    den = tl.zeros((BLOCK_D,), tl.float32)
    broken = tl.zeros((BLOCK_D,), tl.float32)
    for first in range(0, LENGTH, AT_ONCE):
        t0 = start + first
        left = tl.minimum(LENGTH - first, T - t0)
        keys = load_rows(K + b * k_b + t0 * k_t + d, k_t, left, on, AT_ONCE, float("-inf"))
        values = load_rows(V + b * v_b + t0 * v_t + d, v_t, left, on, AT_ONCE, 0.0)
        new = top
        for i in tl.static_range(AT_ONCE):
            new = tl.maximum(new, keys[i].to(tl.float32))
        fade = tl.exp(top - new)
        num, den, top = fade * num, fade * den, new
        for i in tl.static_range(AT_ONCE):
            weight, value = key_weight(keys[i], top), values[i].to(tl.float32)
            num += tl.where(weight == 0.0, 0.0, weight * value)
            den += weight
            if WITH_PEAK:
                broken = tl.where(tl.abs(value) < HUGEST, broken, 1.0)
    log, mean = normal(top, num, den)
    place = (b * RUNS + run) * D + d
    tl.store(LOG + place, log, mask=on)
    tl.store(MEAN + place, mean, mask=on)
    if WITH_PEAK:
        tl.store(PEAK + place, tl.where((broken > 0.0) | (den != den), float("inf"), top), mask=on)


@triton.jit
def prefix_kernel(LOG, MEAN, RUNS, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """(log, mean) of each run and all before it, in place."""
    b, _, d = place_of(1, D, BLOCK_D)
    on = d < D
    top = tl.full((BLOCK_D,), FLOOR, tl.float32)
    num = tl.zeros((BLOCK_D,), tl.float32)
    den = tl.zeros((BLOCK_D,), tl.float32)
    for first in range(0, RUNS, AT_ONCE):
        place = (b * RUNS + first) * D + d
        logs = load_rows(LOG + place, D, RUNS - first, on, AT_ONCE, FLOOR)
        means = load_rows(MEAN + place, D, RUNS - first, on, AT_ONCE, 0.0)
        for i in tl.static_range(AT_ONCE):
            live = tl.where(logs[i] == FLOOR, 0.0, 1.0)
            top, num, den = join(top, num, den, logs[i], live * means[i], live)
            log, mean = normal(top, num, den)
            tl.store(LOG + place + i * D, log, mask=on & (first + i < RUNS))
            tl.store(MEAN + place + i * D, mean, mask=on & (first + i < RUNS))


@triton.jit
def suffix_kernel(LOG, ONE, TWO, RUNS, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """ONE and TWO of each run and all after it relative to its LOG (which never falls), in place."""
    b, _, d = place_of(1, D, BLOCK_D)
    on = d < D
    log = tl.zeros((BLOCK_D,), tl.float32)
    one = tl.zeros((BLOCK_D,), tl.float32)
    two = tl.zeros((BLOCK_D,), tl.float32)
    for done in range(0, RUNS, AT_ONCE):
        place = (b * RUNS + RUNS - 1 - done) * D + d
        logs = load_rows(LOG + place, -D, RUNS - done, on, AT_ONCE, 0.0)
        ones = load_rows(ONE + place, -D, RUNS - done, on, AT_ONCE, 0.0)
        twos = load_rows(TWO + place, -D, RUNS - done, on, AT_ONCE, 0.0)
        for i in tl.static_range(AT_ONCE):
            fade = tl.exp(tl.minimum(logs[i] - log, 0.0))
            log, one, two = logs[i], fade * one + ones[i], fade * two + twos[i]
            tl.store(ONE + place - i * D, one, mask=on & (done + i < RUNS))
            tl.store(TWO + place - i * D, two, mask=on & (done + i < RUNS))
