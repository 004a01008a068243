"""Position biases of causal AFT-local as its kernels take them: by distance from factors (Eq. 7), and as weights.

Tiles pair the targets of a chunk with the sources of the chunk `near` before it.
"""

import triton
import triton.language as tl

from aft_lens.ops.kernels.scan.local_tiles import bias_tile


@triton.jit
def window_bias_kernel(
    U, V, W, T, R, WINDOW, NEAR, BLOCK: tl.constexpr, BLOCK_R: tl.constexpr
):  # fmt: skip
    """w = u_t . v_s of each target and distance, W `t offset`; one program a tile. 0 before the first source."""
    chunk, near = tl.program_id(0) // (NEAR + 1), tl.program_id(0) % (NEAR + 1)
    t = (chunk * BLOCK + tl.arange(0, BLOCK))[:, None]
    s = (chunk - near) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK, BLOCK), tl.float32)
    for r0 in range(0, R, BLOCK_R):
        r = r0 + tl.arange(0, BLOCK_R)
        u = tl.load(U + t * R + r[None, :], mask=(t < T) & (r < R)[None, :], other=0.0)
        on = (s[:, None] >= 0) & (s[:, None] < T) & (r < R)[None, :]
        v = tl.load(V + s[:, None] * R + r[None, :], mask=on, other=0.0)
        total = tl.dot(u, tl.trans(v), total, input_precision="tf32x3")
    offset = t - s[None, :]
    tl.store(W + t * WINDOW + offset, total, mask=(offset >= 0) & (offset < WINDOW) & (t < T))


@triton.jit
def window_bias_backward_kernel(
    G, X, OUT, T, R, WINDOW, NEAR, BLOCK: tl.constexpr, BLOCK_R: tl.constexpr, SOURCES: tl.constexpr
):  # fmt: skip
    """Gradient of u from G `t offset` and X = v; with SOURCES that of v from X = u. One program a chunk and BLOCK_R."""
    chunk = tl.program_id(0)
    r = tl.program_id(1) * BLOCK_R + tl.arange(0, BLOCK_R)
    own = chunk * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK, BLOCK_R), tl.float32)
    for near in range(NEAR + 1):
        other = own + near * BLOCK if SOURCES else own - near * BLOCK
        offset = other[None, :] - own[:, None] if SOURCES else own[:, None] - other[None, :]
        t = other[None, :] if SOURCES else own[:, None]
        on = (offset >= 0) & (offset < WINDOW) & (t < T) & (t >= offset)
        g = tl.load(G + t * WINDOW + offset, mask=on, other=0.0)
        here = (other[:, None] >= 0) & (other[:, None] < T) & (r < R)[None, :]
        x = tl.load(X + other[:, None] * R + r[None, :], mask=here, other=0.0)
        total = tl.dot(g, x, total, input_precision="tf32x3")
    tl.store(OUT + own[:, None] * R + r[None, :], total, mask=(own[:, None] < T) & (r < R)[None, :])


@triton.jit
def expand_kernel(W, E, TOP, T, WINDOW, NEAR, BLOCK: tl.constexpr, ROWS: tl.constexpr):
    """Weights e^(w - a_t) of each target and the sources of its near chunks and its own, E `t source`.

    Later sources have 0. TOP is a_t, the largest of 0 and w. One program ROWS targets and a chunk of sources.
    """
    near = tl.program_id(1)
    t = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    chunk = tl.program_id(0) * ROWS // BLOCK
    largest = tl.zeros((ROWS, BLOCK), tl.float32)
    for first in range(0, WINDOW, BLOCK):
        offset = first + tl.arange(0, BLOCK)[None, :]
        w = tl.load(W + t * WINDOW + offset, mask=(offset < WINDOW) & (offset <= t) & (t < T), other=0.0).to(tl.float32)
        largest = tl.maximum(largest, w)
    top = tl.max(largest, 1)
    place = near * BLOCK + tl.arange(0, BLOCK)[None, :]
    w = bias_tile(W, t, (chunk - NEAR) * BLOCK + place, T, WINDOW)
    e = tl.exp(w - top[:, None]).to(E.dtype.element_ty)
    tl.store(E + t.to(tl.int64) * ((NEAR + 1) * BLOCK) + place, e)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    tl.store(TOP + row, top, mask=(row < T) & (near == 0))
