"""Pooling and indexing, backward in one pass over whole grid rows.

With the forward's symbols, o = num / den, g = sigmoid(q), r = 1 / den and t_i the target whose i-th source is s,

    dq = dy (o + bias) g (1 - g)      dnum = dy g r                             dden = -r sum_c dy g o
    dv_s = e_s G_s                    G_s = e^-a sum_t dnum_t + sum_i f_i dnum_{t_i}
    dk_s = sum_c v_s dv_s + e_s H_s   H_s = e^-a sum_t dden_t + sum_i f_i dden_{t_i}
    dw_i = e^(w_i - a) sum_s e_s (sum_c v_s dnum_{t_i} + dden_{t_i})

dnum_{t_i} is worked out again from dy and q at shifted addresses, in the cache. With one offset so is dden_{t_i},
whose own source is s; with more, r and dden go through memory, written and read back by the same program.
"""

import triton
import triton.language as tl

from aft_lens.ops.kernels.indexed.tiles import kept_shares, kept_slots, positions, row_sum
from aft_lens.ops.kernels.tiles import LOG2_E, power, reciprocal


@triton.jit
def backward_kernel(
    Q, K, V, W, OFFSET, STATS, QB, VB, DY, DQ, DK, DV, DW, R, DDEN,
    B, COLUMNS,
    q_b, q_h, q_c, k_b, k_h, v_b, v_h, v_c, d_b, d_h, d_c,
    C: tl.constexpr, T: tl.constexpr, GRID_X: tl.constexpr, DIMS: tl.constexpr, KEEP: tl.constexpr,
    KEEP_BLOCK: tl.constexpr, CHUNKS: tl.constexpr, LANES: tl.constexpr, BLOCK_B: tl.constexpr,
    B_STEPS: tl.constexpr, UNIT: tl.constexpr, HAS_QUERY: tl.constexpr,
    HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """One program a head and group of batch rows. Strides along the batch in steps of UNIT.

    DQ and DV are laid out `h c b t`, DK, R and DDEN `h b t`. DW `h k column` takes each program's sums. Rows marked
    in STATS come out wrong, but finite in DW, and are written again by the exact kernel.
    """
    head = tl.program_id(0).to(tl.int64)
    chunk, lane = positions(CHUNKS, LANES)
    p = chunk + lane
    on = p < T
    high, _, base, factor, shift, inside, back = kept_slots(W, OFFSET, head, p, T, GRID_X, DIMS, KEEP)
    slot = tl.arange(0, KEEP_BLOCK)[:, None, None]
    dw = tl.zeros((KEEP_BLOCK, BLOCK_B, LANES), tl.float32)
    for step in range(B_STEPS):
        b = (tl.program_id(1) * B_STEPS + step) * BLOCK_B + tl.arange(0, BLOCK_B)[None, :, None]
        live = b < B
        mask = live & on
        b = tl.minimum(b, B - 1).to(tl.int64)
        stats = STATS + head * (C + 2) * B + b
        top = tl.load(stats + C * B)
        total = tl.load(stats + (C + 1) * B)
        good = live & (total > 0.0)
        pool = base * tl.where(good, total, 1.0)
        keys = K + head * k_h + b * (k_b * UNIT)
        row = (head * B + b) * T
        e = power(tl.load(keys + lane + chunk, mask=on, other=float("-inf")).to(tl.float32) * LOG2_E - top)
        den, share = kept_shares(keys, factor, shift, inside, lane, chunk, top, tl.zeros_like(e) + pool, KEEP)
        inverse = reciprocal(den)
        if KEEP == 1:
            inverse_back = reciprocal(pool + tl.where(back[0], factor[0] * e, 0.0))
        elif KEEP > 1:
            tl.store(R + row + lane + chunk, inverse, mask=mask)
            tl.debug_barrier()
        dden = tl.zeros_like(e)
        dden_back = tl.zeros_like(e)
        dk = tl.zeros_like(e)
        for c in range(C):
            values = V + head * v_h + c * v_c + b * (v_b * UNIT)
            queries = Q + head * q_h + c * q_c + b * (q_b * UNIT)
            upstream = DY + head * d_h + c * d_c + b * (d_b * UNIT)
            v = tl.load(values + lane + chunk, mask=on, other=0.0).to(tl.float32)
            dnum = tl.load(upstream + lane + chunk, mask=on, other=0.0).to(tl.float32)
            pooled = base * tl.load(stats + c * B)
            o = tl.zeros_like(e) + pooled
            for i in tl.static_range(KEEP):
                source = tl.load(values + shift[i] + lane + chunk, mask=inside[i], other=0.0)
                o += share[i] * source.to(tl.float32)
            o *= inverse
            out = ((head * C + c) * B + b) * T
            if HAS_QUERY:
                q_scale = -LOG2_E
                q_bias = 0.0
                full = o
                if HAS_BIAS:
                    q_bias = tl.load(QB + head * C + c).to(tl.float32) * q_scale
                    full = o + tl.load(VB + head * C + c).to(tl.float32)
                q = tl.load(queries + lane + chunk, mask=on, other=0.0).to(tl.float32)
                gate = reciprocal(1.0 + power(q * q_scale + q_bias))
                dnum *= gate
                dq = dnum * full * (1.0 - gate)
                tl.store(DQ + out + lane + chunk, dq.to(DQ.dtype.element_ty), mask=mask)
            dnum *= inverse
            dden -= dnum * o
            grad = tl.zeros_like(e) + base * row_sum(dnum)
            for i in tl.static_range(KEEP):
                near = tl.load(upstream - shift[i] + lane + chunk, mask=back[i], other=0.0).to(tl.float32)
                if HAS_QUERY:
                    q = tl.load(queries - shift[i] + lane + chunk, mask=back[i], other=0.0).to(tl.float32)
                    near *= reciprocal(1.0 + power(q * q_scale + q_bias))
                if KEEP == 1:
                    near *= inverse_back
                    dden_back -= near * ((pooled + factor[0] * e * v) * inverse_back)
                else:
                    near *= tl.load(R + row - shift[i] + lane + chunk, mask=back[i], other=0.0)
                grad += factor[i] * near
                dw += tl.where((slot == i) & good, tl.sum(near * e * v, 0)[None, :, :], 0.0)
            grad *= e
            dk += grad * v
            tl.store(DV + out + lane + chunk, grad.to(DV.dtype.element_ty), mask=mask)
        grad = tl.zeros_like(e) + base * row_sum(dden)
        if KEEP > 1:
            tl.store(DDEN + row + lane + chunk, dden, mask=mask)
            tl.debug_barrier()
        for i in tl.static_range(KEEP):
            if KEEP > 1:
                dden_back = tl.load(DDEN + row - shift[i] + lane + chunk, mask=back[i], other=0.0)
            grad += factor[i] * dden_back
            dw += tl.where((slot == i) & good, tl.sum(dden_back * e, 0)[None, :, :], 0.0)
        dk += grad * e
        tl.store(DK + row + lane + chunk, dk.to(DK.dtype.element_ty), mask=mask)
    if KEEP > 0:
        places = tl.arange(0, KEEP_BLOCK)
        w = tl.load(W + head * KEEP + places, mask=places < KEEP, other=0.0).to(tl.float32)
        dw = tl.sum(tl.sum(dw, 2), 1) * power((w - high) * LOG2_E)
        tl.store(DW + (head * KEEP + places) * COLUMNS + tl.program_id(1), dw, mask=places < KEEP)
