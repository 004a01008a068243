"""Pieces that the indexed kernels share: positions of a tile, kept offsets, sums over sources, exact scores.

A tile holds whole grid rows of one head as `chunk row lane`, position = chunk * LANES + lane: with 32 lanes of
positions a thread keeps most of a row's chunks, and a sum over sources takes few exchanges between threads.
"""

import triton
import triton.language as tl

from aft_lens.ops.kernels.tiles import LOG2_E, power


@triton.jit
def positions(CHUNKS: tl.constexpr, LANES: tl.constexpr):
    """First position of each chunk, `chunk 1 1`, and the lanes, `1 1 lane`.

    They are added to a pointer one after the other: the chunk then becomes the constant part of an address.
    """
    return tl.arange(0, CHUNKS)[:, None, None] * LANES, tl.arange(0, LANES)[None, None, :]


@triton.jit
def row_sum(x):
    """Sum over positions, `1 row 1`."""
    return tl.sum(tl.sum(x, 0), 1)[None, :, None]


@triton.jit
def offset_at(OFFSET, head, i, KEEP: tl.constexpr, DIMS: tl.constexpr):
    """(dy, dx) of a head's i-th kept offset."""
    at = OFFSET + (head * KEEP + i) * DIMS
    dy = tl.load(at).to(tl.int32) if DIMS == 2 else 0
    return dy, tl.load(at + DIMS - 1).to(tl.int32)


@triton.jit
def on_grid(p, dy, dx, T: tl.constexpr, GRID_X: tl.constexpr):
    """Whether p and p moved by (dy, dx) both lie on the grid."""
    y = p // GRID_X + dy
    x = p % GRID_X + dx
    return (p < T) & (y >= 0) & (y < T // GRID_X) & (x >= 0) & (x < GRID_X)


@triton.jit
def kept_slots(W, OFFSET, head, p, T: tl.constexpr, GRID_X: tl.constexpr, DIMS: tl.constexpr, KEEP: tl.constexpr):
    """What a head's kept offsets are to positions p.

    a = max(w, 0), min(w, 0), e^-a, and for each offset e^(w - a) - e^-a, its step through memory, whether a target at
    p has that source on the grid, and whether a source at p has that target.
    """
    high = 0.0
    low = 0.0
    for i in tl.static_range(KEEP):
        w = tl.load(W + head * KEEP + i).to(tl.float32)
        high = tl.maximum(high, w)
        low = tl.minimum(low, w)
    base = power(-high * LOG2_E)
    factor = ()
    shift = ()
    inside = ()
    back = ()
    for i in tl.static_range(KEEP):
        w = tl.load(W + head * KEEP + i).to(tl.float32)
        dy, dx = offset_at(OFFSET, head, i, KEEP, DIMS)
        factor += (power((w - high) * LOG2_E) - base,)  # type: ignore[assignment]
        shift += (dy * GRID_X + dx,)  # type: ignore[assignment]
        inside += (on_grid(p, dy, dx, T, GRID_X),)  # type: ignore[assignment]
        back += (on_grid(p, -dy, -dx, T, GRID_X),)  # type: ignore[assignment]
    return high, low, base, factor, shift, inside, back


@triton.jit
def kept_shares(keys, factor, shift, inside, lane, chunk, top, den, KEEP: tl.constexpr):
    """`den` with what each kept source adds to it, and these additions; `keys` points at the rows of keys."""
    share = ()
    for i in tl.static_range(KEEP):
        key = tl.load(keys + shift[i] + lane + chunk, mask=inside[i], other=float("-inf")).to(tl.float32)
        part = factor[i] * power(key * LOG2_E - top)
        share += (part,)  # type: ignore[assignment]
        den += part
    return den, share


@triton.jit
def kept(OFFSET, head, i, t, s, T: tl.constexpr, GRID_X: tl.constexpr, DIMS: tl.constexpr, KEEP: tl.constexpr):
    """Whether s is the source at a head's i-th offset of target t, broadcast."""
    dy, dx = offset_at(OFFSET, head, i, KEEP, DIMS)
    return on_grid(t, dy, dx, T, GRID_X) & (t + (dy * GRID_X + dx) == s)


@triton.jit
def kept_bias(
    W, OFFSET, head, t, s, T: tl.constexpr, GRID_X: tl.constexpr, DIMS: tl.constexpr, KEEP: tl.constexpr
):  # fmt: skip
    """w of targets t and sources s, broadcast: 0 where nothing is kept, -inf for sources past the last."""
    w = tl.where(s < T, 0.0, float("-inf")) + t * 0.0
    for i in tl.static_range(KEEP):
        match = kept(OFFSET, head, i, t, s, T, GRID_X, DIMS, KEEP)
        w += tl.where(match, tl.load(W + head * KEEP + i).to(tl.float32), 0.0)
    return w
