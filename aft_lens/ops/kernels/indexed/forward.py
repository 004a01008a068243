"""Pooling and indexing in one pass, forward: AFT-conv whose heads keep k offsets (Sec. 8).

With e_s = e^(K_s - max), a = max(0, max_i w_i), f_i = e^(w_i - a) - e^-a and s_i the source at offset i of target t,

    den_t = e^-a sum_s e_s + sum_i f_i e_{s_i}      num_t = e^-a sum_s e_s v_s + sum_i f_i e_{s_i} v_{s_i}

The k sources are read again at shifted addresses and come from the cache. den_t loses digits where f_i takes a key
that holds nearly the whole sum away again; with biases of at least LOW it keeps FLOOR = e^LOW of the sum, below that a
row whose den_t falls under FLOOR of it is redone with every weight written out, and so is any row of a head whose
biases span more than SAFE.
"""

import triton
import triton.language as tl

from aft_lens.ops.kernels.indexed.exact import exact_row
from aft_lens.ops.kernels.indexed.tiles import kept_shares, kept_slots, positions, row_sum
from aft_lens.ops.kernels.tiles import LOG2_E, power, reciprocal


@triton.jit
def forward_kernel(
    Q, K, V, W, OFFSET, Y, STATS, QB, VB,
    B,
    q_b, q_h, q_c, k_b, k_h, v_b, v_h, v_c, y_b, y_h, y_c,
    C: tl.constexpr, T: tl.constexpr, GRID_X: tl.constexpr, DIMS: tl.constexpr, KEEP: tl.constexpr,
    CHUNKS: tl.constexpr, LANES: tl.constexpr, BLOCK_B: tl.constexpr, B_STEPS: tl.constexpr,
    C_PER: tl.constexpr, C_SPLITS: tl.constexpr, UNIT: tl.constexpr, HAS_QUERY: tl.constexpr,
    HAS_BIAS: tl.constexpr, LOW: tl.constexpr, FLOOR: tl.constexpr, SAFE: tl.constexpr,
):  # fmt: skip
    """One program a head, group of channels and group of batch rows. Strides along the batch in steps of UNIT.

    STATS `h c+2 b` in float32 takes sum_s e_s v_s of each channel, then max K in powers of two, then sum_s e_s,
    this one -1 in rows that were redone.
    """
    pid = tl.program_id(0)
    head = (pid // C_SPLITS).to(tl.int64)
    split = pid % C_SPLITS
    chunk, lane = positions(CHUNKS, LANES)
    p = chunk + lane
    on = p < T
    high, low, base, factor, shift, inside, _ = kept_slots(W, OFFSET, head, p, T, GRID_X, DIMS, KEEP)
    redo = 1.0
    for step in range(B_STEPS):
        b = (tl.program_id(1) * B_STEPS + step) * BLOCK_B + tl.arange(0, BLOCK_B)[None, :, None]
        live = b < B
        b = tl.minimum(b, B - 1).to(tl.int64)
        keys = K + head * k_h + b * (k_b * UNIT)
        values = V + head * v_h + b * (v_b * UNIT) + split * C_PER * v_c
        queries = Q + head * q_h + b * (q_b * UNIT) + split * C_PER * q_c
        key = tl.load(keys + lane + chunk, mask=on, other=float("-inf")).to(tl.float32)
        if C_PER == 1:  # in flight together with the keys
            value = tl.load(values + lane + chunk, mask=on, other=0.0)
            if HAS_QUERY:
                query = tl.load(queries + lane + chunk, mask=on, other=0.0)
        top = tl.max(tl.max(key, 0), 1)[None, :, None] * LOG2_E
        e = power(key * LOG2_E - top)
        total = row_sum(e)
        pool = base * total
        den, share = kept_shares(keys, factor, shift, inside, lane, chunk, top, tl.zeros_like(e) + pool, KEEP)
        stats = STATS + head * (C + 2) * B + b
        if high - low > SAFE:
            total = tl.zeros_like(total) - 1.0
            redo = tl.minimum(redo, -1.0)
        elif low < LOW:
            kept_share = tl.min(tl.min(tl.where(on, den / pool, 1.0), 0), 1)[None, :, None]
            total = tl.where(kept_share < FLOOR, -1.0, total)
            redo = tl.minimum(redo, tl.min(total))
        tl.store(STATS + (head * (C + 2) + C) * B + b, top, mask=live)
        tl.store(STATS + (head * (C + 2) + C + 1) * B + b, total, mask=live)
        for j in range(C_PER):
            c = (split * C_PER + j).to(tl.int64)
            if C_PER > 1:
                value = tl.load(values + j * v_c + lane + chunk, mask=on, other=0.0)
                if HAS_QUERY:
                    query = tl.load(queries + j * q_c + lane + chunk, mask=on, other=0.0)
            pooled = row_sum(e * value.to(tl.float32))
            tl.store(stats + c * B, pooled, mask=live)
            y = tl.zeros_like(e) + base * pooled
            for i in tl.static_range(KEEP):
                v = tl.load(values + j * v_c + shift[i] + lane + chunk, mask=inside[i], other=0.0)
                y += share[i] * v.to(tl.float32)
            if HAS_BIAS:
                y += tl.load(VB + head * C + c).to(tl.float32) * den
            if HAS_QUERY:
                q = query.to(tl.float32)
                if HAS_BIAS:
                    q += tl.load(QB + head * C + c).to(tl.float32)
                y *= reciprocal(den + den * power(q * -LOG2_E))
            else:
                y *= reciprocal(den)
            out = Y + head * y_h + c * y_c + b * (y_b * UNIT)
            tl.store(out + lane + chunk, y.to(Y.dtype.element_ty), mask=live & on)
    if redo < 0.0:
        tl.debug_barrier()
        for row in range(B_STEPS * BLOCK_B):
            b = tl.program_id(1).to(tl.int64) * B_STEPS * BLOCK_B + row
            if tl.load(STATS + (head * (C + 2) + C + 1) * B + b, mask=b < B, other=1.0) < 0.0:
                exact_row(
                    Q, K, V, W, OFFSET, Y, QB, VB, head, b, split * C_PER, C,
                    q_b * UNIT, q_h, q_c, k_b * UNIT, k_h, v_b * UNIT, v_h, v_c, y_b * UNIT, y_h, y_c,
                    T, GRID_X, DIMS, KEEP, C_PER, HAS_QUERY, HAS_BIAS, 16,
                )  # fmt: skip
