"""Causal AFT-simple (Eq. 5): a scan down time in one pass, and its reverse.

With L_t = log sum_{s <= t} e^(K_s), which never falls, and g the gradient of the mean y,

    A_s = sum_{t >= s} g_t e^(L_s - L_t)        B_s = sum_{t >= s} g_t y_t e^(L_s - L_t)
    dv_s = e^(K_s - L_s) A_s                    dk_s = e^(K_s - L_s) (v_s A_s - B_s)

where every exponent is at most 0. L and y are not kept: backward scans each tile again from the run before it.
"""

import triton
import triton.language as tl

from aft_lens.ops.kernels.scan_state import FLOOR, later, normal, row, scan_tile
from aft_lens.ops.kernels.tiles import sigmoid


@triton.jit
def simple_forward_kernel(
    Q, K, V, Y, LOG, MEAN, TILE_LOG, TILE_MEAN,
    T, D, q_b, q_t, k_b, k_t, v_b, v_t, RUNS, STEPS, TILES,
    ROWS: tl.constexpr, BLOCK_D: tl.constexpr, HAS_QUERY: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """One program a run of STEPS tiles and block of channels; (LOG, MEAN) `b run d` of each run and all before it.

    Writes (TILE_LOG, TILE_MEAN), `b tile d`: the state before each tile.
    """
    blocks = tl.cdiv(D, BLOCK_D)
    pid = tl.program_id(0)
    run = (pid // blocks) % RUNS
    b = (pid // (blocks * RUNS)).to(tl.int64)
    d = (pid % blocks) * BLOCK_D + tl.arange(0, BLOCK_D)
    local = tl.arange(0, ROWS)[:, None]
    last = local == ROWS - 1
    before = (b * RUNS + run - 1) * D + d
    log = tl.load(LOG + before, mask=(d < D) & (run > 0), other=FLOOR)
    num = tl.load(MEAN + before, mask=(d < D) & (run > 0), other=0.0)
    den = tl.where(log > FLOOR, 1.0, 0.0)
    top = log
    for step in tl.range(0, STEPS, num_stages=STAGES):
        tile = run * STEPS + step
        t0 = tile.to(tl.int64) * ROWS
        on = (t0 + local < T) & (d[None, :] < D)
        k = tl.load(K + b * k_b + t0 * k_t + local * k_t + d[None, :], mask=on, other=float("-inf")).to(tl.float32)
        v = tl.load(V + b * v_b + t0 * v_t + local * v_t + d[None, :], mask=on, other=0.0).to(tl.float32)
        log, mean = normal(top, num, den)
        place = (b * TILES + tile) * D + d
        tl.store(TILE_LOG + place, log, mask=(d < D) & (tile < TILES))
        tl.store(TILE_MEAN + place, mean, mask=(d < D) & (tile < TILES))
        tops, nums, dens = scan_tile(k, v, top, num, den, ROWS)
        y = nums / dens
        if HAS_QUERY:
            y *= sigmoid(tl.load(Q + b * q_b + t0 * q_t + local * q_t + d[None, :], mask=on, other=0.0).to(tl.float32))
        tl.store(Y + (b * T + t0) * D + local * D + d[None, :], y.to(Y.dtype.element_ty), mask=on)
        top, num, den = tl.max(tops, 0), row(nums, last), row(dens, last)


@triton.jit
def simple_backward_kernel(
    DY, Q, K, V, TILE_LOG, TILE_MEAN, LOG, ONE, TWO, DQ, DK, DV,
    T, D, y_b, y_t, q_b, q_t, k_b, k_t, v_b, v_t, RUNS, STEPS, TILES,
    ROWS: tl.constexpr, BLOCK_D: tl.constexpr, HAS_QUERY: tl.constexpr, SUMMARY: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """The tiles of a run from the last to the first; (LOG, ONE, TWO) `b run d` are L, A and B at each run's start.

    SUMMARY writes those of the run alone, and nothing else; otherwise they are read from the run after this one,
    which has all later ones in it. Gradients are laid out `b t d`.
    """
    blocks = tl.cdiv(D, BLOCK_D)
    pid = tl.program_id(0)
    run = (pid // blocks) % RUNS
    b = (pid // (blocks * RUNS)).to(tl.int64)
    d = (pid % blocks) * BLOCK_D + tl.arange(0, BLOCK_D)
    local = tl.arange(0, ROWS)[:, None]
    first = local == 0
    after = (b * RUNS + run + 1) * D + d
    more = (d < D) & (run + 1 < RUNS) & (not SUMMARY)
    log = tl.load(LOG + after, mask=more, other=-FLOOR)
    one = tl.load(ONE + after, mask=more, other=0.0)
    two = tl.load(TWO + after, mask=more, other=0.0)
    for step in tl.range(0, STEPS, num_stages=STAGES):
        tile = run * STEPS + STEPS - 1 - step
        t0 = tile.to(tl.int64) * ROWS
        on = (t0 + local < T) & (d[None, :] < D)
        k = tl.load(K + b * k_b + t0 * k_t + local * k_t + d[None, :], mask=on, other=float("-inf")).to(tl.float32)
        v = tl.load(V + b * v_b + t0 * v_t + local * v_t + d[None, :], mask=on, other=0.0).to(tl.float32)
        g = tl.load(DY + b * y_b + t0 * y_t + local * y_t + d[None, :], mask=on, other=0.0).to(tl.float32)
        place = (b * TILES + tile) * D + d
        known = (d < D) & (tile < TILES)
        log0 = tl.load(TILE_LOG + place, mask=known, other=FLOOR)
        mean0 = tl.load(TILE_MEAN + place, mask=known, other=0.0)
        tops, nums, dens = scan_tile(k, v, log0, mean0, tl.where(log0 > FLOOR, 1.0, 0.0), ROWS)
        logs, y = normal(tops, nums, dens)
        logs = tl.where(on, logs, -FLOOR)
        out = (b * T + t0) * D + local * D + d[None, :]
        if HAS_QUERY:
            q = tl.load(Q + b * q_b + t0 * q_t + local * q_t + d[None, :], mask=on, other=0.0).to(tl.float32)
            gate = sigmoid(q)
            if not SUMMARY:
                tl.store(DQ + out, (g * y * gate * (1.0 - gate)).to(DQ.dtype.element_ty), mask=on)
            g *= gate
        _, ones, twos = tl.associative_scan((logs, g, g * y), 0, later, reverse=True)
        fade = tl.exp(logs - log[None, :])
        ones += fade * one[None, :]
        twos += fade * two[None, :]
        if not SUMMARY:
            weight = tl.exp(k - logs)
            tl.store(DV + out, (weight * ones).to(DV.dtype.element_ty), mask=on)
            tl.store(DK + out, (weight * (v * ones - twos)).to(DK.dtype.element_ty), mask=on)
        log, one, two = row(logs, first), row(ones, first), row(twos, first)
    if SUMMARY:
        place = (b * RUNS + run) * D + d
        tl.store(LOG + place, log, mask=d < D)
        tl.store(ONE + place, one, mask=d < D)
        tl.store(TWO + place, two, mask=d < D)
