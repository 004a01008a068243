"""Causal AFT-simple (Eq. 5): a scan down time in one pass, and its reverse.

With L_t = log sum_{s <= t} e^(K_s), which never falls, and g the gradient of the mean y,

    A_s = sum_{t >= s} g_t e^(L_s - L_t)        B_s = sum_{t >= s} g_t y_t e^(L_s - L_t)
    dv_s = e^(K_s - L_s) A_s                    dk_s = e^(K_s - L_s) (v_s A_s - B_s)

where every exponent is at most 0. L and y are not kept: backward scans each tile again from the run before it. A lane
owns its channels and takes the rows of a tile in turn, which are loaded together first.
"""

import triton
import triton.language as tl

from aft_lens.ops.kernels.scan.state import FLOOR, include, load_rows, mean_of, normal, place_of, with_row
from aft_lens.ops.kernels.tiles import sigmoid


@triton.jit
def simple_forward_kernel(
    Q, K, V, Y, LOG, MEAN, TILE_LOG, TILE_MEAN,
    T, D: tl.constexpr, q_b, q_t: tl.constexpr, k_b, k_t: tl.constexpr, v_b, v_t: tl.constexpr, RUNS, STEPS, TILES,
    ROWS: tl.constexpr, BLOCK_D: tl.constexpr, HAS_QUERY: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """One program a run of STEPS tiles and block of channels; (LOG, MEAN) `b run d` of each run and all before it.

    KEEP writes (TILE_LOG, TILE_MEAN), `b tile d`: the state before each tile.
    """
    b, run, d = place_of(RUNS, D, BLOCK_D, LAST_FIRST=True)
    on = d < D
    before = (b * RUNS + run - 1) * D + d
    top = tl.load(LOG + before, mask=on & (run > 0), other=FLOOR)
    num = tl.load(MEAN + before, mask=on & (run > 0), other=0.0)
    den = tl.where(top > FLOOR, 1.0, 0.0)
    start = run.to(tl.int64) * STEPS
    for step in range(tl.minimum(STEPS, TILES - run * STEPS)):
        tile = start + step
        t0 = tile * ROWS
        left = T - t0
        keys = load_rows(K + b * k_b + t0 * k_t + d, k_t, left, on, ROWS, float("-inf"))
        values = load_rows(V + b * v_b + t0 * v_t + d, v_t, left, on, ROWS, 0.0)
        if HAS_QUERY:
            queries = load_rows(Q + b * q_b + t0 * q_t + d, q_t, left, on, ROWS, 0.0)
        if KEEP:
            log, mean = normal(top, num, den)
            place = (b * TILES + tile) * D + d
            tl.store(TILE_LOG + place, log, mask=on)
            tl.store(TILE_MEAN + place, mean, mask=on)
        out = Y + (b * T + t0) * D + d
        for i in tl.static_range(ROWS):
            top, num, den = include(top, num, den, keys[i].to(tl.float32), values[i].to(tl.float32))
            y = mean_of(num, den)
            if HAS_QUERY:
                y *= sigmoid(queries[i].to(tl.float32))
            tl.store(out + i * D, y.to(Y.dtype.element_ty), mask=on & (i < left))


@triton.jit
def simple_backward_kernel(
    DY, Q, K, V, TILE_LOG, TILE_MEAN, LOG, ONE, TWO, DQ, DK, DV,
    T, D: tl.constexpr, y_b, y_t: tl.constexpr, q_b, q_t: tl.constexpr, k_b, k_t: tl.constexpr, v_b,
    v_t: tl.constexpr, RUNS, STEPS, TILES,
    ROWS: tl.constexpr, BLOCK_D: tl.constexpr, HAS_QUERY: tl.constexpr, SUMMARY: tl.constexpr,
):  # fmt: skip
    """The tiles of a run from the last to the first; (LOG, ONE, TWO) `b run d` are L, A and B at each run's start.

    SUMMARY writes those of the run alone, and nothing else; otherwise they are read from the run after this one,
    which has all later ones in it. Gradients are laid out `b t d`.
    """
    b, run, d = place_of(RUNS, D, BLOCK_D, LAST_FIRST=not SUMMARY)
    on = d < D
    after = (b * RUNS + run + 1) * D + d
    more = on & (run + 1 < RUNS) & (not SUMMARY)
    log = tl.load(LOG + after, mask=more, other=0.0)
    one = tl.load(ONE + after, mask=more, other=0.0)
    two = tl.load(TWO + after, mask=more, other=0.0)
    stop = tl.minimum(run.to(tl.int64) * STEPS + STEPS, TILES)
    for back in range(tl.minimum(STEPS, TILES - run * STEPS)):
        tile = stop - 1 - back
        t0 = tile * ROWS
        left = T - t0
        keys = load_rows(K + b * k_b + t0 * k_t + d, k_t, left, on, ROWS, float("-inf"))
        values = load_rows(V + b * v_b + t0 * v_t + d, v_t, left, on, ROWS, 0.0)
        grads = load_rows(DY + b * y_b + t0 * y_t + d, y_t, left, on, ROWS, 0.0)
        if HAS_QUERY:
            queries = load_rows(Q + b * q_b + t0 * q_t + d, q_t, left, on, ROWS, 0.0)
        place = (b * TILES + tile) * D + d
        top = tl.load(TILE_LOG + place, mask=on, other=FLOOR)
        num = tl.load(TILE_MEAN + place, mask=on, other=0.0)
        den = tl.where(top > FLOOR, 1.0, 0.0)
        logs, means = (), ()
        for i in tl.static_range(ROWS):
            top, num, den = include(top, num, den, keys[i].to(tl.float32), values[i].to(tl.float32))
            row_log, row_mean = normal(top, num, den)
            logs = with_row(logs, row_log)
            means = with_row(means, row_mean)
        out = (b * T + t0) * D + d
        near_log, near_one, near_two = row_log, tl.zeros_like(one), tl.zeros_like(two)
        all_one, all_two = one, two
        for i in tl.static_range(ROWS - 1, -1, -1):
            live = on & (i < left)
            g = grads[i].to(tl.float32)
            if HAS_QUERY:
                gate = sigmoid(queries[i].to(tl.float32))
                g *= gate
                if not SUMMARY:
                    dq = g * means[i] * (1.0 - gate)
                    tl.store(DQ + out + i * D, dq.to(DQ.dtype.element_ty), mask=live)
            fade = tl.exp(logs[i] - near_log)
            near_log, near_one, near_two = logs[i], g + fade * near_one, g * means[i] + fade * near_two
            far = tl.exp(tl.minimum(logs[i] - log, 0.0))
            all_one, all_two = near_one + far * one, near_two + far * two
            if not SUMMARY:
                weight = tl.exp(keys[i].to(tl.float32) - logs[i])
                dk = weight * (values[i].to(tl.float32) * all_one - all_two)
                tl.store(DV + out + i * D, (weight * all_one).to(DV.dtype.element_ty), mask=live)
                tl.store(DK + out + i * D, dk.to(DK.dtype.element_ty), mask=live)
        log, one, two = near_log, all_one, all_two
    if SUMMARY:
        place = (b * RUNS + run) * D + d
        tl.store(LOG + place, log, mask=on)
        tl.store(ONE + place, one, mask=on)
        tl.store(TWO + place, two, mask=on)
