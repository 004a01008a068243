"""Before and between the products on large grids: weights of a halo, images in strips, sums outside patches.

A strip holds eight columns, row after row; an image is its strips one after the other, the last padded with zeros.
"""

import triton
import triton.language as tl

from aft_lens.ops.kernels.tiles import head_range, sigmoid


@triton.jit
def strip_position(i, GRID_Y: tl.constexpr):
    """Row and column of places in strip order."""
    return i // 8 % GRID_Y, i // (8 * GRID_Y) * 8 + i % 8


@triton.jit
def weight_kernel(
    W, E, RANGE,
    GRID_Y: tl.constexpr, GRID_X: tl.constexpr, STRIPS: tl.constexpr, PATCH_Y: tl.constexpr, PATCH_X: tl.constexpr,
    HALO_Y: tl.constexpr, HALO_S: tl.constexpr, MARGIN: tl.constexpr, RADIUS: tl.constexpr,
    WIN_Y: tl.constexpr, WIN_X: tl.constexpr, WIN_BLOCK: tl.constexpr, DEPTH: tl.constexpr, BLOCK: tl.constexpr,
    FLIP: tl.constexpr,
):  # fmt: skip
    """E = e^(w - a) of every pair of a halo's places and a patch's targets, `h halo target`, e^-a off the window.

    With FLIP from the sources' side: halos of targets around patches of sources. RANGE is a and a - min(w, 0), `h 2`.
    """
    head = tl.program_id(0).to(tl.int64)
    shift, span = head_range(W, head, WIN_Y * WIN_X, WIN_BLOCK)
    k = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[:, None]
    n = tl.arange(0, PATCH_Y * PATCH_X)[None, :]
    row, column = strip_position(k, HALO_Y)
    y = row - RADIUS - n // PATCH_X
    x = column - 8 * MARGIN - n % PATCH_X
    if FLIP:
        y = -y
        x = -x
    y += WIN_Y // 2
    x += WIN_X // 2
    inside = (y >= 0) & (y < WIN_Y) & (x >= 0) & (x < WIN_X)
    w = tl.load(W + head * WIN_Y * WIN_X + y * WIN_X + x, mask=inside, other=0.0).to(tl.float32)
    e = tl.where(k < HALO_Y * HALO_S * 8, tl.exp(w - shift), 0.0)
    tl.store(E + (head * DEPTH + k) * (PATCH_Y * PATCH_X) + n, e.to(E.dtype.element_ty), mask=k < DEPTH)
    if tl.program_id(1) == 0:
        tl.store(RANGE + head * 2, shift)
        tl.store(RANGE + head * 2 + 1, span)


@triton.jit
def store_strip(X, S, x, row, POSITIONS: tl.constexpr, BLOCK: tl.constexpr):
    """Write a program's part of an image in strips, and the sum of each of its rows of eight."""
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    group = tl.program_id(1) * (BLOCK // 8) + tl.arange(0, BLOCK // 8)
    tl.store(X + row * POSITIONS + i, x.to(X.dtype.element_ty), mask=i < POSITIONS)
    sums = tl.sum(tl.reshape(x, (BLOCK // 8, 8)), 1)
    tl.store(S + row * (POSITIONS // 8) + group, sums.to(S.dtype.element_ty), mask=group < POSITIONS // 8)


@triton.jit
def pack_kernel(
    K, V, A, S, RANGE,
    B, C,
    k_b, k_h, v_b, v_h, v_c,
    GRID_Y: tl.constexpr, GRID_X: tl.constexpr, STRIPS: tl.constexpr, BLOCK: tl.constexpr, UNIT: tl.constexpr,
    SAFE: tl.constexpr,
):  # fmt: skip
    """A = e^(K - m) [V, 1] in strips, `h c+1 b place`, and S, its sums of eight; one program an image and block.

    Heads beyond SAFE keep V itself for the exact kernels.
    """
    T: tl.constexpr = GRID_Y * GRID_X
    POSITIONS: tl.constexpr = STRIPS * GRID_Y * 8
    LINE: tl.constexpr = 4096
    head = (tl.program_id(0) // B).to(tl.int64)
    b = (tl.program_id(0) % B).to(tl.int64)
    keys = K + head * k_h + b * (k_b * UNIT)
    values = V + head * v_h + b * (v_b * UNIT)
    top = tl.full((LINE,), float("-inf"), tl.float32)
    for start in range(0, T, LINE):
        s = start + tl.arange(0, LINE)
        top = tl.maximum(top, tl.load(keys + s, mask=s < T, other=float("-inf")).to(tl.float32))
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    y, x = strip_position(i, GRID_Y)
    on = (i < POSITIONS) & (x < GRID_X)
    t = y * GRID_X + x
    key = tl.load(keys + t, mask=on, other=float("-inf")).to(tl.float32)
    weight = tl.exp(key - tl.max(top, 0))
    store_strip(A, S, weight, (head * (C + 1) + C) * B + b, POSITIONS, BLOCK)
    weight = tl.where(tl.load(RANGE + head * 2 + 1) > SAFE, 1.0, weight)
    for c in range(C):
        v = tl.load(values + c * v_c + t, mask=on, other=0.0).to(tl.float32)
        store_strip(A, S, weight * v, (head * (C + 1) + c) * B + b, POSITIONS, BLOCK)


@triton.jit
def outside_kernel(
    S, OUT,
    ROWS,
    GRID_Y: tl.constexpr, GRID_X: tl.constexpr, STRIPS: tl.constexpr, PATCH_Y: tl.constexpr, PATCH_X: tl.constexpr,
    HALO_Y: tl.constexpr, HALO_S: tl.constexpr, MARGIN: tl.constexpr, RADIUS: tl.constexpr,
    BLOCK: tl.constexpr, BLOCK_Y: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    """OUT = the sum of everything outside a patch's halo, `image patch`, taken directly from the sums of eight S.

    That is the rows above and below, and beside the halo its own rows; one program a block of images.
    """
    PATCHES_Y: tl.constexpr = (GRID_Y + PATCH_Y - 1) // PATCH_Y
    PATCHES_X: tl.constexpr = (GRID_X + PATCH_X - 1) // PATCH_X
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = row < ROWS
    images = S + tl.minimum(row, ROWS - 1).to(tl.int64) * (STRIPS * GRID_Y)
    y = tl.arange(0, BLOCK_Y)[None, :]
    lines = tl.zeros((BLOCK, BLOCK_Y), tl.float32)
    for strip in range(STRIPS):
        lines += tl.load(images[:, None] + strip * GRID_Y + y, mask=y < GRID_Y, other=0.0).to(tl.float32)
    strip = tl.arange(0, BLOCK_S)
    near = tl.arange(0, BLOCK_H)[None, None, :]
    for patch_y in range(PATCHES_Y):
        first = patch_y * PATCH_Y - RADIUS
        beyond = tl.sum(tl.where((y < first) | (y >= first + HALO_Y), lines, 0.0), 1)
        on = (strip[None, :, None] < STRIPS) & (near < HALO_Y) & (first + near >= 0) & (first + near < GRID_Y)
        place = images[:, None, None] + strip[None, :, None] * GRID_Y + first + near
        beside = tl.sum(tl.load(place, mask=on, other=0.0).to(tl.float32), 2)
        for patch_x in range(PATCHES_X):
            left = patch_x * (PATCH_X // 8) - MARGIN
            far = (strip < left) | (strip >= left + HALO_S)
            total = beyond + tl.sum(tl.where(far[None, :], beside, 0.0), 1)
            patch = patch_y * PATCHES_X + patch_x
            tl.store(OUT + row.to(tl.int64) * (PATCHES_Y * PATCHES_X) + patch, total, mask=live)


@triton.jit
def gate_kernel(
    Q, Y, R, RANGE, QB, VB, DY, DQ, G, S, BIAS,
    B, C,
    q_b, q_h, q_c, y_b, y_h, y_c, d_b, d_h, d_c,
    GRID_Y: tl.constexpr, GRID_X: tl.constexpr, STRIPS: tl.constexpr, BLOCK: tl.constexpr, UNIT: tl.constexpr,
    HAS_QUERY: tl.constexpr, HAS_BIAS: tl.constexpr, SAFE: tl.constexpr,
):  # fmt: skip
    """Gradients of query (`h c b t`) and of [num, den] (G in strips, S its sums of eight); one program as in packing.

    BIAS gets a program's sums of the gradients of both biases, `image block c 2`. Heads beyond SAFE get G times den.
    """
    T: tl.constexpr = GRID_Y * GRID_X
    POSITIONS: tl.constexpr = STRIPS * GRID_Y * 8
    head = (tl.program_id(0) // B).to(tl.int64)
    b = (tl.program_id(0) % B).to(tl.int64)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    row, x = strip_position(i, GRID_Y)
    on = (i < POSITIONS) & (x < GRID_X)
    t = row * GRID_X + x
    r = tl.load(R + (head * B + b) * POSITIONS + i, mask=on, other=0.0)
    r = tl.where(tl.load(RANGE + head * 2 + 1) > SAFE, 1.0, r)
    sums = BIAS + (tl.program_id(0).to(tl.int64) * tl.num_programs(1) + tl.program_id(1)) * C * 2
    dden = tl.zeros((BLOCK,), tl.float32)
    for c in range(C):
        mean = tl.load(Y + head * y_h + c * y_c + b * (y_b * UNIT) + t, mask=on, other=0.0).to(tl.float32)
        dmean = tl.load(DY + head * d_h + c * d_c + b * (d_b * UNIT) + t, mask=on, other=0.0).to(tl.float32)
        product = dmean * mean
        if HAS_QUERY:
            q = tl.load(Q + head * q_h + c * q_c + b * (q_b * UNIT) + t, mask=on, other=0.0).to(tl.float32)
            if HAS_BIAS:
                q += tl.load(QB + head * C + c).to(tl.float32)
            gate = sigmoid(q)
            dq = product * (1.0 - gate)
            dmean *= gate
            tl.store(DQ + ((head * C + c) * B + b) * T + t, dq.to(DQ.dtype.element_ty), mask=on)
            if HAS_BIAS:
                tl.store(sums + c * 2, tl.sum(dq, 0))
        if HAS_BIAS:
            tl.store(sums + c * 2 + 1, tl.sum(dmean, 0))
            product -= dmean * tl.load(VB + head * C + c).to(tl.float32)
        dden -= product
        store_strip(G, S, dmean * r, (head * (C + 1) + c) * B + b, POSITIONS, BLOCK)
    store_strip(G, S, dden * r, (head * (C + 1) + C) * B + b, POSITIONS, BLOCK)
