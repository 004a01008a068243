"""Fused AFT-conv on large grids, forward: one product a patch of targets (Eq. 6).

    num_t = sum_{s in halo} E_st A_s + e^-a OUT,  E = e^(w - a) in the window and e^-a beside it, >= 0 throughout

where the halo holds every window of the patch and OUT is the sum of all A outside it, one number a patch. E depends on
positions relative to the patch alone, so that it multiplies the halos of all patches, channels and images of a head.
"""

import triton
import triton.language as tl

from aft_lens.ops.kernels.tiles import sigmoid


@triton.jit
def weight_outside(RANGE, head, E):
    """e^-a, rounded as E holds it: every source outside the window weighs the same."""
    return tl.exp(-tl.load(RANGE + head * 2)).to(E.dtype.element_ty).to(tl.float32)


@triton.jit
def locate(m, PATCHES_X: tl.constexpr, PATCHES: tl.constexpr, PATCH_Y: tl.constexpr, PATCH_S: tl.constexpr):
    """Image, first row and first strip of rows of the products: images one after the other, patch by patch."""
    patch = m % PATCHES
    return m // PATCHES, patch // PATCHES_X * PATCH_Y, patch % PATCHES_X * PATCH_S


@triton.jit
def halo_tile(
    X, image, y0, strip0, k,
    GRID_Y: tl.constexpr, STRIPS: tl.constexpr, HALO_Y: tl.constexpr, HALO_S: tl.constexpr, MARGIN: tl.constexpr,
    RADIUS: tl.constexpr,
):  # fmt: skip
    """Places k of the halos around patches: a row each, 0 off the grid and beyond the halo."""
    strip = k // (8 * HALO_Y)
    inner = k % (8 * HALO_Y)
    top = y0 - RADIUS
    left = strip0 - MARGIN
    place = image.to(tl.int64) * (STRIPS * GRID_Y * 8) + (left * GRID_Y + top) * 8
    y = top[:, None] + (k // 8 % HALO_Y)[None, :]
    column = left[:, None] + strip[None, :]
    on = (y >= 0) & (y < GRID_Y) & (column >= 0) & (column < STRIPS) & (strip < HALO_S)[None, :]
    return tl.load(X + place[:, None] + (strip * (GRID_Y * 8) + inner)[None, :], mask=on, other=0.0)


@triton.jit
def halo_product(
    X, E, image, y0, strip0,
    GRID_Y: tl.constexpr, STRIPS: tl.constexpr, HALO_Y: tl.constexpr, HALO_S: tl.constexpr, MARGIN: tl.constexpr,
    RADIUS: tl.constexpr, DEPTH: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Halos times their weights, float32: X holds a head's images, E its weights."""
    n = tl.arange(0, BLOCK_N)[None, :]
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, DEPTH, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        x = halo_tile(X, image, y0, strip0, k, GRID_Y, STRIPS, HALO_Y, HALO_S, MARGIN, RADIUS)
        total = tl.dot(x, tl.load(E + k[:, None] * BLOCK_N + n), total, input_precision=PRECISION)
    return total


@triton.jit
def patch_sums(
    A, E, OUT, RANGE, head, first, images,
    GRID_Y: tl.constexpr, GRID_X: tl.constexpr, STRIPS: tl.constexpr, PATCH_Y: tl.constexpr, PATCH_X: tl.constexpr,
    HALO_Y: tl.constexpr, HALO_S: tl.constexpr, MARGIN: tl.constexpr, RADIUS: tl.constexpr,
    DEPTH: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Sums over all sources for a program's patches of the images from `first` on: `patch target`.

    Also each patch's image, first row and first strip, and whether it is one.
    """
    BLOCK_N: tl.constexpr = PATCH_Y * PATCH_X
    PATCHES_X: tl.constexpr = (GRID_X + PATCH_X - 1) // PATCH_X
    PATCHES: tl.constexpr = (GRID_Y + PATCH_Y - 1) // PATCH_Y * PATCHES_X
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    live = m < images * PATCHES
    m = tl.minimum(m, images * PATCHES - 1)
    image, y0, strip0 = locate(m, PATCHES_X, PATCHES, PATCH_Y, PATCH_X // 8)
    sums = halo_product(
        A + first * (STRIPS * GRID_Y * 8), E + head * DEPTH * BLOCK_N, image, y0, strip0,
        GRID_Y, STRIPS, HALO_Y, HALO_S, MARGIN, RADIUS, DEPTH, BLOCK_M, BLOCK_N, BLOCK_K, PRECISION,
    )  # fmt: skip
    sums += (tl.load(OUT + first * PATCHES + m) * weight_outside(RANGE, head, E))[:, None]
    return sums, image, y0, strip0, live


@triton.jit
def denominator_kernel(
    A, E, OUT, RANGE, R,
    B, C,
    GRID_Y: tl.constexpr, GRID_X: tl.constexpr, STRIPS: tl.constexpr, PATCH_Y: tl.constexpr, PATCH_X: tl.constexpr,
    HALO_Y: tl.constexpr, HALO_S: tl.constexpr, MARGIN: tl.constexpr, RADIUS: tl.constexpr,
    DEPTH: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """R = 1 / den in strips, `h b place`; one program a head and block of patches."""
    head = tl.program_id(1).to(tl.int64)
    den, image, y0, strip0, live = patch_sums(
        A, E, OUT, RANGE, head, (head * (C + 1) + C) * B, B,
        GRID_Y, GRID_X, STRIPS, PATCH_Y, PATCH_X, HALO_Y, HALO_S, MARGIN, RADIUS, DEPTH, BLOCK_M, BLOCK_K, PRECISION,
    )  # fmt: skip
    n = tl.arange(0, PATCH_Y * PATCH_X)[None, :]
    y = y0[:, None] + n // PATCH_X
    strip = strip0[:, None] + n // 8 % (PATCH_X // 8)
    place = (strip * GRID_Y + y) * 8 + n % 8
    on = live[:, None] & (y < GRID_Y) & (strip < STRIPS)
    tl.store(R + (head * B + image[:, None]) * (STRIPS * GRID_Y * 8) + place, 1.0 / den, mask=on)


@triton.jit
def numerator_kernel(
    A, E, OUT, RANGE, R, Q, Y, QB, VB,
    B, C,
    q_b, q_h, q_c,
    GRID_Y: tl.constexpr, GRID_X: tl.constexpr, STRIPS: tl.constexpr, PATCH_Y: tl.constexpr, PATCH_X: tl.constexpr,
    HALO_Y: tl.constexpr, HALO_S: tl.constexpr, MARGIN: tl.constexpr, RADIUS: tl.constexpr,
    DEPTH: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
    UNIT: tl.constexpr, HAS_QUERY: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """Y = sigmoid(q) num / den, `h c b t`; one program a head and block of patches of its channels and images."""
    T: tl.constexpr = GRID_Y * GRID_X
    head = tl.program_id(1).to(tl.int64)
    num, image, y0, strip0, live = patch_sums(
        A, E, OUT, RANGE, head, head * (C + 1) * B, C * B,
        GRID_Y, GRID_X, STRIPS, PATCH_Y, PATCH_X, HALO_Y, HALO_S, MARGIN, RADIUS, DEPTH, BLOCK_M, BLOCK_K, PRECISION,
    )  # fmt: skip
    n = tl.arange(0, PATCH_Y * PATCH_X)[None, :]
    y = y0[:, None] + n // PATCH_X
    x = (strip0 * 8)[:, None] + n % PATCH_X
    on = live[:, None] & (y < GRID_Y) & (x < GRID_X)
    t = y * GRID_X + x
    strip = strip0[:, None] + n // 8 % (PATCH_X // 8)
    c = image // B
    b = (image % B).to(tl.int64)
    place = (strip * GRID_Y + y) * 8 + n % 8
    out = num * tl.load(R + (head * B + b)[:, None] * (STRIPS * GRID_Y * 8) + place, mask=on, other=0.0)
    if HAS_BIAS:
        out += tl.load(VB + head * C + c).to(tl.float32)[:, None]
    if HAS_QUERY:
        base = head * q_h + c.to(tl.int64) * q_c + b * (q_b * UNIT)
        q = tl.load(Q + base[:, None] + t, mask=on, other=0.0).to(tl.float32)
        if HAS_BIAS:
            q += tl.load(QB + head * C + c).to(tl.float32)[:, None]
        out *= sigmoid(q)
    tl.store(Y + (head * C * B + image)[:, None] * T + t, out.to(Y.dtype.element_ty), mask=on)
