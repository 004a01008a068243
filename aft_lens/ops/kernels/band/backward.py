"""Fused AFT-conv on large grids, backward.

With G = the gradient of [num, den], an image a channel like A, and mixed = E^T G + e^-a (the sum of G off the halo):

    dV = e^(K - m) mixed_num        dK = sum over channels and den of A mixed
    dw = e^(w - a) x the sum over each offset's pairs of  sum over images of A_s G_t
"""

import triton
import triton.language as tl

from aft_lens.ops.kernels.band.forward import halo_product, halo_tile, locate, weight_outside


@triton.jit
def source_kernel(
    A, G, E, OUT, RANGE, DK, DV,
    B, C,
    GRID_Y: tl.constexpr, GRID_X: tl.constexpr, STRIPS: tl.constexpr, PATCH_Y: tl.constexpr, PATCH_X: tl.constexpr,
    HALO_Y: tl.constexpr, HALO_S: tl.constexpr, MARGIN: tl.constexpr, RADIUS: tl.constexpr,
    DEPTH: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, SPLITS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of value, `h c b t`, and key, a part a group of channels `split h b t`.

    One program a head, group of channels (den is the last) and block of patches of sources.
    """
    T: tl.constexpr = GRID_Y * GRID_X
    POSITIONS: tl.constexpr = STRIPS * GRID_Y * 8
    BLOCK_N: tl.constexpr = PATCH_Y * PATCH_X
    PATCHES_X: tl.constexpr = (GRID_X + PATCH_X - 1) // PATCH_X
    PATCHES: tl.constexpr = (GRID_Y + PATCH_Y - 1) // PATCH_Y * PATCHES_X
    split = tl.program_id(0) % SPLITS
    head = tl.program_id(1).to(tl.int64)
    rows = B * PATCHES
    m = tl.program_id(0) // SPLITS * BLOCK_M + tl.arange(0, BLOCK_M)
    live = m < rows
    m = tl.minimum(m, rows - 1)
    image, y0, strip0 = locate(m, PATCHES_X, PATCHES, PATCH_Y, PATCH_X // 8)
    n = tl.arange(0, BLOCK_N)[None, :]
    y = y0[:, None] + n // PATCH_X
    x = (strip0 * 8)[:, None] + n % PATCH_X
    on = live[:, None] & (y < GRID_Y) & (x < GRID_X)
    t = y * GRID_X + x
    place = ((strip0[:, None] + n // 8 % (PATCH_X // 8)) * GRID_Y + y) * 8 + n % 8
    scale = weight_outside(RANGE, head, E)
    first = head * (C + 1) * B
    dk = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for c in range(split * (C + 1) // SPLITS, (split + 1) * (C + 1) // SPLITS):
        channel = first + c * B
        mixed = halo_product(
            G + channel * POSITIONS, E + head * DEPTH * BLOCK_N, image, y0, strip0,
            GRID_Y, STRIPS, HALO_Y, HALO_S, MARGIN, RADIUS, DEPTH, BLOCK_M, BLOCK_N, BLOCK_K, PRECISION,
        )  # fmt: skip
        mixed += (tl.load(OUT + channel * PATCHES + m) * scale)[:, None]
        a = tl.load(A + (channel + image)[:, None] * POSITIONS + place, mask=on, other=0.0).to(tl.float32)
        dk += a * mixed
        weight = tl.load(A + (first + C * B + image)[:, None] * POSITIONS + place, mask=on, other=0.0).to(tl.float32)
        out = DV + ((head * C + c) * B + image)[:, None] * T + t
        tl.store(out, (mixed * weight).to(DV.dtype.element_ty), mask=on & (c < C))
    out = DK + ((split * tl.num_programs(1) + head) * B + image)[:, None] * T + t
    tl.store(out, dk, mask=on)


@triton.jit
def pair_kernel(
    A, G, DE,
    B, C,
    GRID_Y: tl.constexpr, GRID_X: tl.constexpr, STRIPS: tl.constexpr, PATCH_Y: tl.constexpr, PATCH_X: tl.constexpr,
    HALO_Y: tl.constexpr, HALO_S: tl.constexpr, MARGIN: tl.constexpr, RADIUS: tl.constexpr,
    DEPTH: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, SPLITS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradient of E summed over patches, channels (den too) and images, a part a group of them: `split h halo target`.

    One program a head, block of the halo's places and group.
    """
    POSITIONS: tl.constexpr = STRIPS * GRID_Y * 8
    BLOCK_N: tl.constexpr = PATCH_Y * PATCH_X
    PATCHES_X: tl.constexpr = (GRID_X + PATCH_X - 1) // PATCH_X
    PATCHES: tl.constexpr = (GRID_Y + PATCH_Y - 1) // PATCH_Y * PATCHES_X
    DEPTH_BLOCKS: tl.constexpr = DEPTH // BLOCK_K
    split = tl.program_id(0) // DEPTH_BLOCKS
    head = tl.program_id(1).to(tl.int64)
    k = tl.program_id(0) % DEPTH_BLOCKS * BLOCK_K + tl.arange(0, BLOCK_K)
    n = tl.arange(0, BLOCK_N)[None, :]
    rows = (C + 1) * B * PATCHES
    each = tl.cdiv(tl.cdiv(rows, BLOCK_M), SPLITS) * BLOCK_M
    a_head = A + head * (C + 1) * B * POSITIONS
    g_head = G + head * (C + 1) * B * POSITIONS
    total = tl.zeros((BLOCK_K, BLOCK_N), tl.float32)
    for start in range(split * each, tl.minimum(split * each + each, rows), BLOCK_M):
        m = start + tl.arange(0, BLOCK_M)
        live = m < rows
        m = tl.minimum(m, rows - 1)
        image, y0, strip0 = locate(m, PATCHES_X, PATCHES, PATCH_Y, PATCH_X // 8)
        a = halo_tile(a_head, image, y0, strip0, k, GRID_Y, STRIPS, HALO_Y, HALO_S, MARGIN, RADIUS)
        y = y0[:, None] + n // PATCH_X
        strip = strip0[:, None] + n // 8 % (PATCH_X // 8)
        place = (image.to(tl.int64) * POSITIONS)[:, None] + (strip * GRID_Y + y) * 8 + n % 8
        g = tl.load(g_head + place, mask=live[:, None] & (y < GRID_Y) & (strip < STRIPS), other=0.0)
        total = tl.dot(tl.trans(a), g, total, input_precision=PRECISION)
    out = DE + ((split * tl.num_programs(1) + head) * DEPTH + k)[:, None] * BLOCK_N + n
    tl.store(out, total)


@triton.jit
def diagonal_kernel(
    W, DE, RANGE, DW,
    SPLITS,
    GRID_Y: tl.constexpr, GRID_X: tl.constexpr, STRIPS: tl.constexpr, PATCH_Y: tl.constexpr, PATCH_X: tl.constexpr,
    HALO_Y: tl.constexpr, HALO_S: tl.constexpr, MARGIN: tl.constexpr, RADIUS: tl.constexpr,
    WIN_Y: tl.constexpr, WIN_X: tl.constexpr, DEPTH: tl.constexpr, BLOCK: tl.constexpr, SAFE: tl.constexpr,
):  # fmt: skip
    """dw = e^(w - a) x DE summed over a patch's targets and the groups; 0 in heads beyond SAFE.

    One program a head, row of its window and block of columns.
    """
    head = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1)
    column = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    on = column < WIN_X
    n = tl.arange(0, PATCH_Y * PATCH_X)[None, :]
    x = n % PATCH_X + column[:, None] + (8 * MARGIN - WIN_X // 2)
    k = (x // 8 * HALO_Y + row + n // PATCH_X) * 8 + x % 8
    total = tl.zeros((BLOCK, PATCH_Y * PATCH_X), tl.float32)
    for split in range(SPLITS):
        place = ((split * tl.num_programs(0) + head) * DEPTH + k) * (PATCH_Y * PATCH_X) + n
        total += tl.load(DE + place, mask=on[:, None], other=0.0)
    place = (head * WIN_Y + row) * WIN_X + column
    shift = tl.load(RANGE + head * 2)
    safe = tl.load(RANGE + head * 2 + 1) <= SAFE
    grad = tl.sum(total, 1) * tl.exp(tl.load(W + place, mask=on, other=0.0).to(tl.float32) - shift)
    tl.store(DW + place, tl.where(safe, grad, 0.0), mask=on)
