"""Fused AFT-conv on small grids with one channel a head, forward (Eq. 6).

A step has two products and as many loads as the many channels of `forward_kernel` share: its time is the wait for
them. Hence the inputs of a step are asked for while the step before computes.
"""

import triton
import triton.language as tl

from aft_lens.ops.kernels.tiles import batch_rows, block, key_weight, reciprocal, sigmoid, weighted


@triton.jit
def forward_one_kernel(
    Q, K, V, E, Y, R, M, QB, VB,
    B,
    q_b, q_h, k_b, k_h, v_b, v_h, y_b, y_h,
    T: tl.constexpr, T_PAD: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_B: tl.constexpr,
    B_STEPS: tl.constexpr, UNIT: tl.constexpr, HAS_QUERY: tl.constexpr, HAS_BIAS: tl.constexpr,
    KEEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program a head, block of targets and group of batch rows; E stays on chip.

    R and M, which only gradients need, are written if KEEP.
    """
    T_TILES: tl.constexpr = (T + BLOCK_T - 1) // BLOCK_T
    t0 = (tl.program_id(0) % T_TILES) * BLOCK_T
    head = (tl.program_id(0) // T_TILES).to(tl.int64)
    s = tl.arange(0, BLOCK_S)[None, :]
    t = t0 + tl.arange(0, BLOCK_T)
    sources = tl.arange(0, BLOCK_S)[:, None]
    e = tl.load(
        E + head * T * T_PAD + (t[None, :] * T_PAD + sources), mask=(t[None, :] < T) & (sources < T_PAD), other=0.0
    )
    t = t[None, :]
    K += head * k_h
    V += head * v_h
    Y += head * y_h
    if HAS_QUERY:
        Q += head * q_h
    if HAS_BIAS:
        value_bias = tl.load(VB + head).to(tl.float32)
        query_bias = tl.load(QB + head).to(tl.float32) if HAS_QUERY else 0.0
    first_block = tl.program_id(1) * B_STEPS
    b, row, live = batch_rows(first_block, B, BLOCK_B)
    next_key = block(K, b, row, k_b, s, s < T, float("-inf"), UNIT)
    next_value = block(V, b, row, v_b, s, s < T, 0.0, UNIT)
    if HAS_QUERY:
        next_query = block(Q, b, row, q_b, t, t < T, 0.0, UNIT)
    for step in range(B_STEPS):
        first, own, on_row, on = b, row, live, live[:, None] & (t < T)
        key, value = next_key, next_value
        if HAS_QUERY:
            query = next_query
        b, row, live = batch_rows(first_block + step + 1, B, BLOCK_B)
        more = step + 1 < B_STEPS
        next_key = block(K, b, row, k_b, s, (s < T) & more, float("-inf"), UNIT)
        next_value = block(V, b, row, v_b, s, (s < T) & more, 0.0, UNIT)
        if HAS_QUERY:
            next_query = block(Q, b, row, q_b, t, (t < T) & more, 0.0, UNIT)
        top = tl.max(key.to(tl.float32), 1)
        weight = key_weight(key, top[:, None]).to(e.dtype)
        inverse = reciprocal(tl.where(t < T, tl.dot(weight, e, input_precision=PRECISION), 1.0))
        if KEEP:
            tl.store(R + (head * B + first) * T + (own[:, None] * T + t), inverse.to(R.dtype.element_ty), mask=on)
            if t0 == 0:
                tl.store(M + head * B + first + own, top, mask=on_row)
        y = tl.dot(weighted(weight, value), e, input_precision=PRECISION) * inverse
        if HAS_BIAS:
            y += value_bias
        if HAS_QUERY:
            gate = query.to(tl.float32)
            if HAS_BIAS:
                gate += query_bias
            y *= sigmoid(gate)
        tl.store(Y + first * (y_b * UNIT) + (own[:, None] * (y_b * UNIT) + t), y.to(Y.dtype.element_ty), mask=on)
