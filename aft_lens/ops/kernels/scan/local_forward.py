"""Causal AFT-local (Eq. 4), forward."""

import triton
import triton.language as tl

from aft_lens.ops.kernels.scan.local_tiles import SMALLEST, any_of, bias_tile, reference, source_factor, tile
from aft_lens.ops.kernels.scan.state import FLOOR, place_of
from aft_lens.ops.kernels.tiles import sigmoid


@triton.jit
def larger(one, other):
    """Maximum, for a scan."""
    return tl.maximum(one, other)


@triton.jit
def local_forward_kernel(
    Q, K, V, W, TOP, LOG, MEAN, Y, OUT_LOG, FLAG,
    T, D, q_b, q_t, k_b, k_t, v_b, v_t, CHUNKS,
    WINDOW: tl.constexpr, NEAR: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr, HAS_QUERY: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program a chunk of targets and block of channels.

    TOP is a_t, (LOG, MEAN) `b chunk d` every chunk and all before it. Y and OUT_LOG, the log of each denominator, are
    laid out `b t d`; what is left to the exact kernel has 1e30 in OUT_LOG, and its program 1 in FLAG.
    """
    b, chunk, d = place_of(CHUNKS, D, BLOCK_D)
    on = d < D
    t = (chunk * BLOCK + tl.arange(0, BLOCK))[:, None]
    K += b * k_b
    V += b * v_b
    LOG += b * CHUNKS * D
    far = chunk - NEAR - 1
    far_log = tl.load(LOG + far * D + d, mask=on & (far >= 0), other=FLOOR)
    far_mean = tl.load(MEAN + (b * CHUNKS + far) * D + d, mask=on & (far >= 0), other=0.0)
    r = reference(K, LOG, chunk, d, D)
    top = tl.load(TOP + t, mask=t < T, other=0.0)
    den = tl.exp(-top) * tl.exp(tl.minimum(far_log - r, 0.0))[None, :]
    num = den * far_mean[None, :]
    broken = tl.zeros((BLOCK_D,), tl.int32)
    for near in range(tl.maximum(0, chunk - NEAR), chunk + 1):
        s = near * BLOCK + tl.arange(0, BLOCK)
        k = tile(K, k_t, s[:, None], d[None, :], T, D, float("-inf"))
        v = tile(V, v_t, s[:, None], d[None, :], T, D, 0.0)
        x, mixed, out = source_factor(k, v, r)
        e = tl.exp(bias_tile(W, t, s[None, :], T, WINDOW) - top).to(DOT)
        num = tl.dot(e, mixed.to(DOT), num, input_precision=PRECISION)
        den = tl.dot(e, x.to(DOT), den, input_precision=PRECISION)
        if near < chunk:
            broken = tl.maximum(broken, tl.max(out, 0))
    k = tile(K, k_t, t, d[None, :], T, D, float("-inf"))
    v = tile(V, v_t, t, d[None, :], T, D, 0.0)
    _, _, out = source_factor(k, v, r)
    out = tl.maximum(tl.associative_scan(out, 0, larger), broken[None, :])
    lost = ((out > 0) | (den <= SMALLEST)) & (t < T) & on[None, :]
    tl.store(FLAG + tl.program_id(0), any_of(lost.to(tl.int32)))
    y = num / den
    place = (b * T + t) * D + d[None, :]
    mask = (t < T) & on[None, :]
    if HAS_QUERY:
        y *= sigmoid(tile(Q + b * q_b, q_t, t, d[None, :], T, D, 0.0))
    tl.store(Y + place, y.to(Y.dtype.element_ty), mask=mask)
    tl.store(OUT_LOG + place, tl.where(lost, -FLOOR, top + r[None, :] + tl.log(den)), mask=mask)
