"""Fused AFT-conv on small grids with one channel a head, forward (Eq. 6), on Hopper's asynchronous matrix units.

Written in Gluon for what Triton does not let one say. A group of four warps takes 32 batch rows, denominator and
numerator as one product of 64 rows: row 16 i + j of it is the weight of batch row 8 i + j, row 16 i + 8 + j its
weight x value. A thread's operands and accumulators of a batch row then stay with it from load to store: nothing
passes through shared memory but E, groups never wait for each other, and the elementwise work of one runs beside the
product of the other.

Positions within 16 are renumbered on the matrix units' side, so that the four a thread holds there are neighbours in
memory: bits 3 2 1 0 of a position are bits 2 1 3 0 there.
"""

import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    warpgroup_mma,
    warpgroup_mma_init,
    warpgroup_mma_wait,
)

from aft_lens.ops.kernels import tiles

BLOCK = tl.constexpr(256)
"""Positions of a tile, sources and targets alike."""
TRIMMED = tl.constexpr(208)
"""Positions up to which a product leaves out the tile's last 48 sources and targets."""
LOG2_E = tiles.LOG2_E
LARGEST_POWER = tl.constexpr(80.0)
"""Binary exponent of e^-q kept below this: (1 + e^-q) x denominator stays in float32's range."""

power = gluon.jit(tiles.power.fn)
reciprocal = gluon.jit(tiles.reciprocal.fn)
weighted = gluon.jit(tiles.weighted.fn)
barrier = gl.thread_barrier if hasattr(gl, "thread_barrier") else gl.barrier  # Triton 3.6, later


@gluon.constexpr_function
def row_layout(warps, columns):
    """A batch row on four threads, four neighbouring positions of every 16 each; eight rows a warp."""
    registers = [[0, 1], [0, 2], *([0, 1 << i] for i in range(4, columns.bit_length() - 1))]
    places = [[8 << i, 0] for i in range(warps.bit_length() - 1)]
    return gl.DistributedLinearLayout(
        registers, [[0, 4], [0, 8], [1, 0], [2, 0], [4, 0]], places, [], [8 * warps, columns]
    )


@gluon.constexpr_function
def expanded_layout(warps, columns):
    """16 neighbouring sources of a target on one thread."""
    count = warps.bit_length() - 1
    targets = [[1 << i, 0] for i in range(columns.bit_length() - 1)]
    lanes = [[0, 16 << i] for i in range(columns.bit_length() - 5)]
    lanes, targets = lanes + targets[: 5 - len(lanes)], targets[5 - len(lanes) :]
    registers = [[0, 1], [0, 2], [0, 4], [0, 8], *targets[count:]]
    return gl.DistributedLinearLayout(registers, lanes, targets[:count], [], [columns, columns])


@gluon.constexpr_function
def sum_layout(warps, columns):
    """An accumulator whose rows are spread over all warps."""
    return gl.NVMMADistributedLayout([3, 0], [warps, 1], [16, columns, 16])


@gluon.jit
def renumbered(x):
    """Columns from memory's order to the matrix units'."""
    ROWS: tl.constexpr = x.shape[0]
    return x.reshape(ROWS, BLOCK // 16, 2, 2, 2, 2).permute(0, 1, 4, 2, 3, 5).reshape(ROWS, BLOCK)


@gluon.jit
def in_order(x):
    """Columns from the matrix units' order to memory's."""
    ROWS: tl.constexpr = x.shape[0]
    return x.reshape(ROWS, BLOCK // 16, 2, 2, 2, 2).permute(0, 1, 3, 4, 2, 5).reshape(ROWS, BLOCK)


@gluon.jit
def interleaved(den, num):
    """Rows 16 i + j of the result are those 8 i + j of den, rows 16 i + 8 + j those of num."""
    ROWS: tl.constexpr = den.shape[0]
    return gl.join(den, num).reshape(ROWS // 8, 8, BLOCK, 2).permute(0, 3, 1, 2).reshape(2 * ROWS, BLOCK)


@gluon.jit
def deinterleaved(both):
    """den and num of `interleaved`."""
    ROWS: tl.constexpr = both.shape[0] // 2
    return gl.split(both.reshape(ROWS // 8, 2, 8, BLOCK).permute(0, 2, 3, 1).reshape(ROWS, BLOCK, 2))


@gluon.jit
def halves(x):
    """The left and the right half of a tile's columns."""
    ROWS: tl.constexpr = x.shape[0]
    COLUMNS: tl.constexpr = x.shape[1]
    return gl.split(x.reshape(ROWS, 2, COLUMNS // 2).permute(0, 2, 1))


@gluon.jit
def beside(left, right):
    """The tile that `halves` parts."""
    ROWS: tl.constexpr = left.shape[0]
    COLUMNS: tl.constexpr = left.shape[1]
    right = gl.convert_layout(right, left.type.layout)  # the same registers, counted otherwise
    return gl.join(left, right).permute(0, 2, 1).reshape(ROWS, 2 * COLUMNS)


@gluon.jit
def operand(a, SUM: tl.constexpr):
    """A tile that lies in registers as the left operand of a product does."""
    return gl.convert_layout(a, gl.DotOperandLayout(0, SUM, 2), assert_trivial=True)


@gluon.jit
def some_columns(a, b, FIRST: tl.constexpr, COUNT: tl.constexpr):
    """Begin a x b for COUNT columns of b from FIRST; a is in parts of 128, 64 and 16 columns."""
    SUM: tl.constexpr = sum_layout(gl.num_warps(), COUNT)
    total = warpgroup_mma_init(gl.zeros([a[0].shape[0], COUNT], gl.float32, SUM))
    b = b.slice(FIRST, COUNT, 1)
    total = warpgroup_mma(operand(a[0], SUM), b.slice(0, 128, 0), total, use_acc=False, is_async=True)
    total = warpgroup_mma(operand(a[1], SUM), b.slice(128, 64, 0), total, is_async=True)
    return warpgroup_mma(operand(a[2], SUM), b.slice(192, 16, 0), total, is_async=True)


@gluon.jit
def trimmed_start(a, b):
    """Begin a x b without the last 48 rows and columns of b, in products of 128, 64 and 16 columns."""
    left, right = halves(a)
    middle, right = halves(right)
    right, _ = halves(right)
    right, _ = halves(right)
    a = (left, middle, right)
    return some_columns(a, b, 0, 128), some_columns(a, b, 128, 64), some_columns(a, b, 192, 16)


@gluon.jit
def trimmed_end(left, middle, right):
    """Await the products of `trimmed_start`; one whole tile, its last 48 columns 0."""
    left, middle, right = warpgroup_mma_wait(0, deps=[left, middle, right])
    right = beside(right, gl.full(right.shape, 0.0, gl.float32, right.type.layout))
    right = beside(right, gl.full(right.shape, 0.0, gl.float32, right.type.layout))
    return beside(left, beside(middle, right))


@gluon.jit
def block(X, first, row, x_b, place, on, fill, UNIT: tl.constexpr):
    """Positions `place` (a row) of a block's batch rows; X stands at their head, x_b counts in UNITs."""
    return gl.load(X + first * (x_b * UNIT) + row[:, None] * (x_b * UNIT) + place, mask=on, other=fill)


@gluon.jit
def on_chip(E, T: tl.constexpr, T_PAD: tl.constexpr):
    """E of one head in shared memory, `s t`, both renumbered."""
    OF_E: tl.constexpr = expanded_layout(gl.num_warps(), BLOCK)
    SHARED: tl.constexpr = gl.NVMMASharedLayout(128, 16, 2)
    i = gl.arange(0, BLOCK, layout=gl.SliceLayout(1, OF_E))
    t = ((i // 16) * 16 + (i % 8) // 2 * 4 + (i // 8) % 2 * 2 + i % 2)[:, None]
    s = gl.arange(0, BLOCK, layout=gl.SliceLayout(0, OF_E))[None, :]
    e = renumbered(gl.load(E + (t * T_PAD + s), mask=(t < T) & (s < T_PAD), other=0.0))
    shared = gl.allocate_shared_memory(E.dtype.element_ty, [BLOCK, BLOCK], SHARED, e)
    fence_async_shared()
    barrier()
    return shared.permute((1, 0))


@gluon.jit
def forward_hopper_kernel(
    Q, K, V, E, Y, R, M, QB, VB,
    B,
    q_b, q_h, k_b, k_h, v_b, v_h, y_b, y_h,
    T: tl.constexpr, T_PAD: tl.constexpr, BLOCK_B: tl.constexpr, B_STEPS: tl.constexpr, UNIT: tl.constexpr,
    HAS_QUERY: tl.constexpr, HAS_BIAS: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """One program a head and group of batch rows; E stays on chip. BLOCK_B is 8 rows a warp.

    R and M, which only gradients need, are written if KEEP.
    """
    WARPS: tl.constexpr = gl.num_warps()
    BY_ROW: tl.constexpr = row_layout(WARPS, BLOCK)
    SUM: tl.constexpr = sum_layout(WARPS, BLOCK)
    head = gl.program_id(0).to(gl.int64)
    expanded = on_chip(E + head * T * T_PAD, T, T_PAD)
    t = gl.arange(0, BLOCK, layout=gl.SliceLayout(0, BY_ROW))[None, :]
    row = gl.arange(0, BLOCK_B, layout=gl.SliceLayout(1, BY_ROW))
    K += head * k_h
    V += head * v_h
    Y += head * y_h
    if HAS_QUERY:
        Q += head * q_h
    if HAS_BIAS:
        value_bias = gl.load(VB + head).to(gl.float32)
        query_bias = gl.load(QB + head).to(gl.float32) * -LOG2_E if HAS_QUERY else 0.0
    first = gl.program_id(1).to(gl.int64) * (B_STEPS * BLOCK_B)
    on = (first + row < B)[:, None] & (t < T)
    key = block(K, first, row, k_b, t, on, float("-inf"), UNIT)
    value = block(V, first, row, v_b, t, on, 0.0, UNIT)
    for step in range(B_STEPS):
        top = gl.max(key, 1).to(gl.float32)
        origin = gl.where(top == float("-inf"), 0.0, top * -LOG2_E)  # rows beyond the batch hold nothing else
        weight = power(key.to(gl.float32) * LOG2_E + origin[:, None]).to(E.dtype.element_ty)
        both = interleaved(renumbered(weight), renumbered(weighted(weight, value)))
        if T <= TRIMMED:
            left, middle, right = trimmed_start(both, expanded)
        else:
            total = gl.zeros([2 * BLOCK_B, BLOCK], gl.float32, SUM)
            product = warpgroup_mma(operand(both, SUM), expanded, total, use_acc=False, is_async=True)
        if KEEP:
            gl.store(M + head * B + first + row, top, mask=first + row < B)
        live = on
        if HAS_QUERY:
            query = block(Q, first, row, q_b, t, live, 0.0, UNIT)
        product = trimmed_end(left, middle, right) if T <= TRIMMED else warpgroup_mma_wait(0, deps=[product])
        following = first + BLOCK_B
        on = (following + row < B)[:, None] & (t < T) & (step + 1 < B_STEPS)
        key = block(K, following, row, k_b, t, on, float("-inf"), UNIT)
        value = block(V, following, row, v_b, t, on, 0.0, UNIT)
        den, num = deinterleaved(product)
        den = gl.convert_layout(in_order(den), BY_ROW)
        num = gl.convert_layout(in_order(num), BY_ROW)
        if HAS_BIAS:
            num += value_bias * den
        if HAS_QUERY:
            exponent = query.to(gl.float32) * -LOG2_E
            if HAS_BIAS:
                exponent += query_bias
            shrunk = 1.0 + power(gl.minimum(exponent, LARGEST_POWER, tl.PropagateNan.ALL))
            joint = reciprocal(den * shrunk)
            inverse = joint * shrunk
        else:
            joint = reciprocal(den)
            inverse = joint
        if KEEP:
            gl.store(R + (head * B + first) * T + row[:, None] * T + t, inverse.to(R.dtype.element_ty), mask=live)
        place = Y + first * (y_b * UNIT) + row[:, None] * (y_b * UNIT) + t
        gl.store(place, (num * joint).to(Y.dtype.element_ty), mask=live)
        first = following
