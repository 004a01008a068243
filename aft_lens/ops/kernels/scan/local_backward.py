"""Causal AFT-local (Eq. 4), backward.

With L_t the log of the denominator, p_ts = e^(K_s + w_ts - L_t) <= 1, and g the gradient of the mean y,

    dv_s = sum_t p_ts g_t        dk_s = v_s dv_s - sum_t p_ts g_t y_t        dw_ts = sum p_ts g_t (v_s - y_t)

over the near chunks of targets pair by pair, and over those beyond as sums A and B relative to the sources' own run.
"""

import triton
import triton.language as tl

from aft_lens.ops.kernels.scan.local_tiles import lost_place, reference, target_factor, target_tile, tile, weight_tile
from aft_lens.ops.kernels.scan.state import FLOOR, place_of
from aft_lens.ops.kernels.tiles import key_weight


@triton.jit
def share_of(pid, CHUNKS, GROUPS):
    """Chunk of targets, group of near chunks and share of the batch rows and channels of a program."""
    return pid % CHUNKS, (pid // CHUNKS) % GROUPS, pid // (CHUNKS * GROUPS)


@triton.jit
def pair_gradient(total, K, V, k_t, v_t, over, less, r, chunk, d, T, D, BLOCK: tl.constexpr,
                  DOT: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """The gradient of E of a chunk of sources added to `total`, from g / den and -g y / den of the factored sums."""
    s = (chunk * BLOCK + tl.arange(0, BLOCK))[:, None]
    inside = tl.where(chunk < 0, -(2**30), T)  # no row of a chunk that is not there
    k = tile(K, k_t, s, d[None, :], inside, D, float("-inf"))
    v = tile(V, v_t, s, d[None, :], inside, D, 0.0)
    x = key_weight(k, r[None, :])
    total = tl.dot(over, tl.trans((x * v).to(DOT)), total, input_precision=PRECISION)
    return tl.dot(less, tl.trans(x.to(DOT)), total, input_precision=PRECISION)


@triton.jit
def store_bias(DW, E, total, chunk, near, split, T, WINDOW, NEAR: tl.constexpr, BLOCK: tl.constexpr):
    """Gradient of the biases of a pair of chunks from that of its weights, into DW `split t offset`."""
    t = (chunk * BLOCK + tl.arange(0, BLOCK))[:, None]
    s = ((chunk - near) * BLOCK + tl.arange(0, BLOCK))[None, :]
    e = weight_tile(E, t, s, chunk, NEAR, BLOCK).to(tl.float32)
    mask = (t - s >= 0) & (t - s < WINDOW) & (t < T) & (s >= 0)
    tl.store(DW + (split.to(tl.int64) * T + t) * WINDOW + t - s, e * total, mask=mask)


@triton.jit
def local_target_kernel(
    Q, K, V, E, TOP, LOG, Y, DY, OUT_LOG, LOST, REF, ONE, TWO, DQ, DW,
    B, T, D: tl.constexpr, WINDOW, y_b, y_t: tl.constexpr, q_b, q_t: tl.constexpr, k_b, k_t: tl.constexpr, v_b,
    v_t: tl.constexpr, CHUNKS, SPLITS,
    NEAR: tl.constexpr, PAIRS: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr, HAS_QUERY: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """What a chunk of targets gives: dq, A and B of the run before its near chunks, and the gradient of the band.

    One program a chunk, PAIRS of its near chunks and every SPLITS-th batch row and block of channels, over which the
    band's gradient is summed, DW `split t offset`, but for blocks that are LOST. The run's log goes to REF, A and B to
    ONE and TWO, `b chunk d`.
    """
    groups = tl.cdiv(NEAR + 1, PAIRS)
    chunk, group, split = share_of(tl.program_id(0), CHUNKS, groups)
    blocks = tl.cdiv(D, BLOCK_D)
    near = chunk - group * PAIRS
    t = (chunk * BLOCK + tl.arange(0, BLOCK))[:, None]
    top = tl.load(TOP + t, mask=t < T, other=0.0)
    one_total = tl.zeros((BLOCK, BLOCK), tl.float32)
    if PAIRS == 2:
        two_total = tl.zeros((BLOCK, BLOCK), tl.float32)
    for i in range(split, B * blocks, SPLITS):
        b = (i // blocks).to(tl.int64)
        d = (i % blocks) * BLOCK_D + tl.arange(0, BLOCK_D)
        on = d < D
        row = b * T * D
        g, gy, gate, out_log = target_tile(
            Q + b * q_b, Y + row, DY + b * y_b, OUT_LOG + row, q_t, y_t, t, d[None, :], T, D, HAS_QUERY
        )
        if group == 0:
            if HAS_QUERY:
                dq = (gy * (1.0 - gate)).to(DQ.dtype.element_ty)
                tl.store(DQ + row + t * D + d[None, :], dq, mask=(t < T) & on[None, :])
            far = chunk - NEAR - 1
            log = tl.load(LOG + (b * CHUNKS + far) * D + d, mask=on & (far >= 0), other=FLOOR)
            share = tl.exp(tl.minimum(log[None, :] - out_log, 0.0))
            place = (b * CHUNKS + chunk) * D + d
            tl.store(REF + place, log, mask=on)
            tl.store(ONE + place, tl.sum(share * g, 0), mask=on)
            tl.store(TWO + place, tl.sum(share * gy, 0), mask=on)
        if tl.load(LOST + lost_place(b, chunk, i % blocks, CHUNKS, D, BLOCK_D)) == 0:
            r = reference(K + b * k_b, LOG + b * CHUNKS * D, chunk, d, D)
            inverse = target_factor(out_log, top, r)
            over, less = (g * inverse).to(DOT), (-gy * inverse).to(DOT)
            one_total = pair_gradient(
                one_total, K + b * k_b, V + b * v_b, k_t, v_t, over, less, r, near, d, T, D, BLOCK, DOT, PRECISION
            )
            if PAIRS == 2:
                two_total = pair_gradient(
                    two_total,
                    K + b * k_b,
                    V + b * v_b,
                    k_t,
                    v_t,
                    over,
                    less,
                    r,
                    near - 1,
                    d,
                    T,
                    D,
                    BLOCK,
                    DOT,
                    PRECISION,
                )
    store_bias(DW, E, one_total, chunk, group * PAIRS, split, T, WINDOW, NEAR, BLOCK)
    if PAIRS == 2:  # noqa: SIM102 - known when this is compiled, unlike the next
        if group * PAIRS < NEAR:
            store_bias(DW, E, two_total, chunk, group * PAIRS + 1, split, T, WINDOW, NEAR, BLOCK)


@triton.jit
def far_gradient(k, LOG, ONE, TWO, b, chunk, d, D, CHUNKS, NEAR: tl.constexpr):
    """What the targets beyond the near chunks give a chunk of sources: its shares of A and B."""
    log = tl.load(LOG + (b * CHUNKS + chunk) * D + d, mask=d < D, other=0.0)
    after = (b * CHUNKS + chunk + NEAR + 1) * D + d
    more = (d < D) & (chunk + NEAR + 1 < CHUNKS)
    share = tl.exp(tl.minimum(k - log[None, :], 0.0))
    one = share * tl.load(ONE + after, mask=more, other=0.0)[None, :]
    return one, share * tl.load(TWO + after, mask=more, other=0.0)[None, :]


@triton.jit
def store_sources(DK, DV, v, one, two, s, d, b, T, D):
    """Gradients of key and value from sum p g and sum p g y; s is a column."""
    place = (b * T + s) * D + d[None, :]
    mask = (s < T) & (d < D)[None, :]
    tl.store(DV + place, one.to(DV.dtype.element_ty), mask=mask)
    tl.store(DK + place, (v * one - two).to(DK.dtype.element_ty), mask=mask)


@triton.jit
def local_source_kernel(
    Q, K, V, E, TOP, LOG, Y, DY, OUT_LOG, ONE, TWO, DK, DV,
    T, D: tl.constexpr, y_b, y_t: tl.constexpr, q_b, q_t: tl.constexpr, k_b, k_t: tl.constexpr, v_b,
    v_t: tl.constexpr, CHUNKS,
    NEAR: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr, HAS_QUERY: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of key and value, `b t d`; one program a chunk of sources.

    Where a block of targets is lost that reads them, the exact kernel overwrites both.
    """
    b, chunk, d = place_of(CHUNKS, D, BLOCK_D)
    s = chunk * BLOCK + tl.arange(0, BLOCK)
    row = b * T * D
    K += b * k_b
    k = tile(K, k_t, s[:, None], d[None, :], T, D, float("-inf"))
    v = tile(V + b * v_b, v_t, s[:, None], d[None, :], T, D, 0.0)
    one, two = far_gradient(k, LOG, ONE, TWO, b, chunk, d, D, CHUNKS, NEAR)
    for near in range(chunk, tl.minimum(chunk + NEAR + 1, CHUNKS)):
        t = near * BLOCK + tl.arange(0, BLOCK)
        g, gy, _, out_log = target_tile(
            Q + b * q_b, Y + row, DY + b * y_b, OUT_LOG + row, q_t, y_t, t[:, None], d[None, :], T, D, HAS_QUERY
        )
        r = reference(K, LOG + b * CHUNKS * D, near, d, D)
        top = tl.load(TOP + t, mask=t < T, other=0.0)
        inverse = target_factor(out_log, top[:, None], r)
        e = tl.trans(weight_tile(E, t[:, None], s[None, :], near, NEAR, BLOCK))
        x = key_weight(k, r[None, :])
        one += x * tl.dot(e, (g * inverse).to(DOT), input_precision=PRECISION)
        two += x * tl.dot(e, (gy * inverse).to(DOT), input_precision=PRECISION)
    store_sources(DK, DV, v, one, two, s[:, None], d, b, T, D)
