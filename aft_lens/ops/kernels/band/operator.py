"""AFT-conv on large grids as a custom operator: launches of the fused and exact kernels.

Between forward and backward the values are kept as A = e^(K - m) [V, 1], which both need and V itself neither.
"""

import torch
import triton
from torch import Tensor

from aft_lens.ops.kernels.band.backward import diagonal_kernel, pair_kernel, source_kernel
from aft_lens.ops.kernels.band.exact import exact_backward_kernel, exact_forward_kernel
from aft_lens.ops.kernels.band.forward import denominator_kernel, numerator_kernel
from aft_lens.ops.kernels.band.launch import Band
from aft_lens.ops.kernels.band.pack import gate_kernel, outside_kernel, pack_kernel, weight_kernel
from aft_lens.ops.kernels.launch import (
    EXACT_PROGRAMS,
    batch_strides,
    batch_unit,
    channel_leading,
    dot_dtype,
    empty_channel_leading,
    last_contiguous,
    strides,
)
from aft_lens.ops.kernels.tiles import SAFE_RANGE

EXACT_BLOCK = 64
"""Targets, and sources, that a program of the exact kernels takes at once."""


def expand(w: Tensor, band: Band, block: int, dtype: torch.dtype, *, flip: bool) -> tuple[Tensor, Tensor]:
    """Weights of a halo `h halo target` and each head's shift and range, `h 2`."""
    h, depth = w.shape[0], band.depth(block)
    e = torch.empty(h, depth, band.targets, dtype=dtype, device=w.device)
    span = torch.empty(h, 2, dtype=torch.float32, device=w.device)
    weight_kernel[(h, triton.cdiv(depth, 32))](
        w, e, span, *band.shape, *band.geometry.window, band.geometry.window_block, depth, 32, flip
    )
    return e, span


def outside(sums: Tensor, band: Band) -> Tensor:
    """What each patch has outside its halo, `h c+1 b patch`, from sums of eight in strips."""
    down, across = band.patches
    out = torch.empty(*sums.shape[:-1], down * across, dtype=torch.float32, device=sums.device)
    images, block = sums.shape[:-1].numel(), band.outside_rows()
    outside_kernel[(triton.cdiv(images, block),)](sums, out, images, *band.shape, block, *band.outside)
    return out


def in_strips(like: Tensor, band: Band, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Unwritten images in strips, `h c+1 b place`, and their sums of eight."""
    b, h, c, _ = like.shape
    images = torch.empty(h, c + 1, b, band.positions, dtype=dtype, device=like.device)
    return images, torch.empty(h, c + 1, b, band.positions // 8, dtype=dtype, device=like.device)


@torch.library.custom_op("aft_lens::band_forward", mutates_args=())
def band_forward(
    query: Tensor | None, key: Tensor, value: Tensor, w: Tensor,
    query_bias: Tensor | None, value_bias: Tensor | None, grid: list[int],
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Mix: y `b h c t`, e^(K - m) [V, 1] in strips `h c+1 b place`, 1 / den in strips `h b place`."""
    b, h, c, _ = value.shape
    dtype = dot_dtype(value.dtype)
    band = Band.of(grid, w, dtype)
    w, key, value = w.contiguous(), last_contiguous(key), channel_leading(value)
    q = value if query is None else channel_leading(query)
    gated, biased = query is not None, query_bias is not None or value_bias is not None
    unit = batch_unit(q, key, value)
    tiles = band.forward_tiles(dtype)
    precision = band.geometry.precision(value.dtype)
    e, span = expand(w, band, tiles.depth, dtype, flip=False)
    a, sums = in_strips(value, band, dtype)
    block = band.pack_block()
    pack_kernel[(h * b, triton.cdiv(band.positions, block))](
        key, value, a, sums, span, b, c, *batch_strides(key, 2, unit), *batch_strides(value, 3, unit),
        *band.shape[:3], block, unit, SAFE_RANGE, num_stages=3,
    )  # fmt: skip
    far = outside(sums, band)
    y = empty_channel_leading(value)
    inverse = torch.empty(h, b, band.positions, dtype=torch.float32, device=value.device)
    patches = band.patches[0] * band.patches[1]
    shape = (*band.shape, e.shape[1], tiles.rows, tiles.depth, precision)
    denominator_kernel[(triton.cdiv(b * patches, tiles.rows), h)](
        a, e, far, span, inverse, b, c, *shape, **tiles.options
    )
    numerator_kernel[(triton.cdiv(c * b * patches, tiles.rows), h)](
        a, e, far, span, inverse, q, y, query_bias, value_bias, b, c, *batch_strides(q, 3, unit),
        *shape, unit, gated, biased, **tiles.options,
    )  # fmt: skip
    exact_forward_kernel[(h, EXACT_PROGRAMS)](
        q, key, w, a, inverse, y, span, query_bias, value_bias, b, c, *strides(q, 3), *strides(key, 2),
        *band.shape[:3], *band.geometry.window, EXACT_BLOCK, gated, biased, SAFE_RANGE,
    )  # fmt: skip
    return y, a, inverse


@band_forward.register_fake
def _(query, key, value, w, query_bias, value_bias, grid):
    b, h, c, _ = value.shape
    dtype = dot_dtype(value.dtype)
    places = Band.of(grid, w, dtype).positions
    images = value.new_empty(h, c + 1, b, places, dtype=dtype)
    return empty_channel_leading(value), images, value.new_empty(h, b, places, dtype=torch.float32)


@torch.library.custom_op("aft_lens::band_backward", mutates_args=())
def band_backward(
    dy: Tensor, query: Tensor | None, key: Tensor, w: Tensor, query_bias: Tensor | None, value_bias: Tensor | None,
    y: Tensor, a: Tensor, inverse: Tensor, grid: list[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients: query `b h c t` (empty without one), key `b h t`, value `b h c t`, w, and of both biases `h c 2`."""
    b, h, c, t = y.shape
    band = Band.of(grid, w, a.dtype)
    gated, biased = query is not None, query_bias is not None or value_bias is not None
    w, key, dy, y = w.contiguous(), last_contiguous(key), channel_leading(dy), channel_leading(y)
    q = y if query is None else channel_leading(query)
    unit = batch_unit(q, y, dy)
    precision = band.geometry.precision(y.dtype)
    tiles = band.source_tiles(c, a.dtype)
    e, span = expand(w, band, tiles.depth, a.dtype, flip=True)
    dq = empty_channel_leading(y) if gated else y.new_empty(0)
    dv = empty_channel_leading(y)
    g, sums = in_strips(y, band, a.dtype)
    block = band.pack_block()
    blocks = triton.cdiv(band.positions, block)
    biases = torch.zeros(h, b * blocks, c, 2, dtype=torch.float32, device=y.device)
    gate_kernel[(h * b, blocks)](
        q, y, inverse, span, query_bias, value_bias, dy, dq, g, sums, biases, b, c,
        *batch_strides(q, 3, unit), *batch_strides(y, 3, unit), *batch_strides(dy, 3, unit),
        *band.shape[:3], block, unit, gated, biased, SAFE_RANGE, num_stages=3,
    )  # fmt: skip
    far = outside(sums, band)
    parts = torch.empty(tiles.splits, h, b, t, dtype=torch.float32, device=y.device)
    patches = band.patches[0] * band.patches[1]
    source_kernel[(triton.cdiv(b * patches, tiles.rows) * tiles.splits, h)](
        a, g, e, far, span, parts, dv, b, c, *band.shape, e.shape[1], tiles.rows, tiles.depth, tiles.splits, precision,
        **tiles.options,
    )  # fmt: skip
    dk = parts.sum(0).to(key.dtype)
    pair = band.pair_tiles(b, h, c, a.dtype)
    depth = band.depth(pair.depth)
    de = torch.empty(pair.splits, h, depth, band.targets, dtype=torch.float32, device=y.device)
    pair_kernel[(depth // pair.depth * pair.splits, h)](
        a, g, de, b, c, *band.shape, depth, pair.rows, pair.depth, pair.splits, precision,
        **pair.options,
    )  # fmt: skip
    dw = torch.empty(w.shape, dtype=torch.float32, device=w.device)
    high, wide = band.geometry.window
    diagonal_kernel[(h, high, triton.cdiv(wide, 16))](
        w, de, span, dw, pair.splits, *band.shape, high, wide, depth, 16, SAFE_RANGE
    )
    exact_backward_kernel[(h, EXACT_PROGRAMS)](
        key, w, a, g, inverse, span, dk, dv, dw, b, c, *strides(key, 2), *band.shape[:3], *band.geometry.window,
        EXACT_BLOCK, SAFE_RANGE,
    )  # fmt: skip
    return dq, dk.transpose(0, 1), dv, dw, biases.sum(1)


@band_backward.register_fake
def _(dy, query, key, w, query_bias, value_bias, y, a, inverse, grid):
    b, h, c, t = y.shape
    dq = y.new_empty(0) if query is None else empty_channel_leading(y)
    dk = key.new_empty(h, b, t).transpose(0, 1)
    sums = y.new_empty(h, c, 2, dtype=torch.float32)
    return dq, dk, empty_channel_leading(y), w.new_empty(w.shape, dtype=torch.float32), sums


def _setup(ctx, inputs, output):
    query, key, _, w, query_bias, value_bias, grid = inputs
    ctx.save_for_backward(query, key, w, query_bias, value_bias, *output)
    ctx.grid = grid


def _backward(ctx, dy, *unused):
    query, key, w, query_bias, value_bias, y, a, inverse = ctx.saved_tensors
    dq, dk, dv, dw, biases = band_backward(dy, query, key, w, query_bias, value_bias, y, a, inverse, ctx.grid)
    dqb, dvb = (
        None if bias is None else biases[..., i].reshape(bias.shape).to(bias.dtype)
        for i, bias in enumerate((query_bias, value_bias))
    )
    return dq if query is not None else None, dk, dv, dw.to(w.dtype), dqb, dvb, None


band_forward.register_autograd(_backward, setup_context=_setup)
