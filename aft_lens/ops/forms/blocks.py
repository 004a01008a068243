"""Sums over every source by matrix products, a block of targets at a time: O(T d) memory, forward and backward.

Not causal: one reference m = max_s K_s a channel. Causal: a block of targets refers to the maximum over the
sources *before the block* (the first key in the first block), so no source moves the bits of an earlier target.
Inside its block a source may exceed the reference; there the exponent is clamped at `LARGEST_EXPONENT` (and an
overflowing or NaN column left out), and the targets that would read it get a denominator of 0, which has them
computed again in a wider dtype.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from aft_lens.ops.forms.block_weights import pair_bias
from aft_lens.ops.forms.columns import LARGEST_EXPONENT, columns, drop_broken, finite, first_key, pull_columns
from aft_lens.ops.forms.spec import Spec

BLOCK_ELEMENTS = 2**20
"""Weights held at once: h x block x T stays near this (4 MiB in float32)."""


def _blocks(heads: int, length: int, causal: bool) -> Iterator[tuple[int, int]]:
    size = max(1, BLOCK_ELEMENTS // (heads * length))
    if causal:
        size = min(max(size, 32), 256)
    for start in range(0, length, size):
        yield start, min(start + size, length)


def _block_columns(key: Tensor, value: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
    """Columns of the sources before `stop` against a causal reference, and which targets went over it."""
    first = first_key(key)
    reference = finite(key[..., :start].amax(-1, keepdim=True), first) if start else first
    limit = LARGEST_EXPONENT[key.dtype]
    over = key[..., start:stop].cummax(-1).values - reference > limit
    mixed = columns(key[..., :stop], value[..., :stop], reference, limit)
    return mixed, over | drop_broken(mixed[..., start:stop])


def sums(key: Tensor, value: Tensor, bias: list[Tensor], spec: Spec) -> tuple[Tensor, Tensor]:
    """Numerator `h m c t` and denominator `h m t` from key `h m s` and value `h m c s`."""
    h, m, c, length = value.shape
    pairs = pair_bias(bias, spec)
    out = value.new_empty(h, m * (c + 1), length)
    mixed = None if spec.causal else columns(key, value, finite(key.amax(-1, keepdim=True))).flatten(1, 2)
    for start, stop in _blocks(h, length, spec.causal):
        over = None
        if mixed is None:
            source, over = _block_columns(key, value, start, stop)
            source = source.flatten(1, 2)
        else:
            source = mixed
        weight = pairs.weights(start, stop, source.shape[-1])
        torch.bmm(source, weight.transpose(1, 2), out=out[..., start:stop])
        if over is not None:
            out.view(h, m, c + 1, length)[:, :, c, start:stop].masked_fill_(over, 0.0)
    out = out.view(h, m, c + 1, length)
    return out[:, :, :c], out[:, :, c]


def pull(
    key: Tensor, value: Tensor, bias: list[Tensor], spec: Spec, gradient: Tensor, *, with_bias: bool
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Gradients of key, value and bias from the gradient of the sums, `h m c+1 t`; weights are made again."""
    h, m, c, length = value.shape
    pairs = pair_bias(bias, spec)
    gradient = gradient.flatten(1, 2)
    mixed = None if spec.causal else columns(key, value, finite(key.amax(-1, keepdim=True)))
    back: Tensor | None = None
    found = (torch.zeros_like(key), torch.zeros_like(value)) if spec.causal else None
    for start, stop in _blocks(h, length, spec.causal):
        source = _block_columns(key, value, start, stop)[0] if mixed is None else mixed
        sources = source.shape[-1]
        weight = pairs.weights(start, stop, sources)
        block = gradient[..., start:stop]
        moved = block @ weight
        if found is None:
            back = moved if back is None else back.add_(moved)
        else:
            parts = pull_columns(source, value[..., :sources], moved.view(h, m, c + 1, sources))
            for whole, part in zip(found, parts, strict=True):
                whole[..., :sources] += part
        if with_bias:
            pairs.pull(start, stop, (block.transpose(1, 2) @ source.flatten(1, 2)).mul_(weight))
    if mixed is not None and back is not None:
        found = pull_columns(mixed, value, back.view(h, m, c + 1, length))
    assert found is not None, "there is one target at least"
    return *found, pairs.gradients() if with_bias else []
