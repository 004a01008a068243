"""AFT-conv with k offsets a head: one pool and k gathers, or one matrix product with the bias written out."""

import torch
from torch import Tensor

from aft_lens.ops.bias import source_index
from aft_lens.ops.forms.in_place import chunks, images_a_chunk, pool_factors
from aft_lens.ops.forms.spec import unnarrowed


def _factors(w: Tensor, offset: Tensor, grid: torch.Size) -> tuple[Tensor, Tensor, Tensor]:
    """With a = max(0, max w): e^-a, shape `h 1`; source places `k 1 h t`; e^(w - a) - e^-a on the grid, `k h t`."""
    if not w.shape[1]:
        empty = w.new_empty(0, len(w), grid.numel())
        return w.new_ones(len(w), 1), empty.long().unsqueeze(1), empty
    scale, _, extra = pool_factors(w)
    flat, inside = source_index(offset, grid)
    return scale, flat.transpose(0, 1).unsqueeze(1), (extra.unsqueeze(-1) * inside).transpose(0, 1)


def gather(key: Tensor, value: Tensor, w: Tensor, offset: Tensor, grid: torch.Size) -> Tensor:
    """Weighted mean `b h c t` from one pool and k gathers."""
    scale, index, factor = _factors(w, offset, grid)
    weight = torch.exp(key - key.amax(-1, keepdim=True).detach())
    pooled = (value * weight.unsqueeze(2)).sum(-1, keepdim=True)
    den = (weight.sum(-1, keepdim=True) * scale).expand(key.shape)
    shares = [weight.gather(2, index[i].expand(key.shape)) * factor[i] for i in range(w.shape[1])]
    for share in shares:
        den = den + share
    den = den.unsqueeze(2)
    mean = (pooled * scale.view(-1, 1, 1)) / den
    for i, share in enumerate(shares):
        place = index[i].unsqueeze(2).expand(value.shape)
        mean = torch.addcmul(mean, value.gather(3, place), share.unsqueeze(2) / den)
    return mean


def gather_in_place(
    query: Tensor | None, key: Tensor, value: Tensor, w: Tensor, offset: Tensor, grid: torch.Size
) -> Tensor:
    """`gather` and the gate, a few images at a time in reused memory: fresh memory costs more than the sums."""
    scale, index, factor = _factors(w, offset, grid)
    mean = torch.empty_like(value)
    size = images_a_chunk(value)
    spare = torch.empty_like(value[:size])
    weights, inverses = torch.empty_like(key[:size]), torch.empty_like(key[:size])
    kept = key.new_empty(len(index), *weights.shape)
    for k, v, out, q in chunks(size, query, key, value, mean):
        b = len(k)
        buffer, weight, inverse, shares = spare[:b], weights[:b], inverses[:b], kept[:, :b]
        torch.sub(k, k.amax(-1, keepdim=True), out=weight).exp_()
        torch.mul(v, weight.unsqueeze(2), out=buffer)
        pooled = buffer.sum(-1, keepdim=True).mul_(scale.view(-1, 1, 1))
        inverse.copy_((weight.sum(-1, keepdim=True) * scale).expand_as(inverse))
        for i, f, share in zip(index, factor, shares):
            inverse.add_(torch.gather(weight, 2, i.expand(k.shape), out=share).mul_(f))
        torch.mul(pooled, inverse.reciprocal_().unsqueeze(2), out=out)
        for i, share in zip(index, shares):
            torch.gather(v, 3, i.unsqueeze(2).expand(v.shape), out=buffer)
            out.addcmul_(buffer, share.mul_(inverse).unsqueeze(2))
        if q is not None:
            out.mul_(torch.sigmoid(q.to(out.dtype), out=buffer))
    return mean


def matmul(key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Weighted mean `b h c t` by one matrix product a head with the bias written out (`h t s`)."""
    weight = torch.exp(key - key.amax(-1, keepdim=True).detach()).unsqueeze(2)
    kernel = torch.exp(bias - bias.flatten(1).amax(1).clamp(min=0.0).detach().view(-1, 1, 1)).transpose(1, 2)
    columns = torch.cat([value * weight, weight], dim=2)
    b, h, c1, t = columns.shape
    with unnarrowed(key):
        mixed = columns.transpose(0, 1).reshape(h, b * c1, t) @ kernel
    mixed = mixed.reshape(h, b, c1, t).transpose(0, 1)
    return mixed[:, :, :-1] / mixed[:, :, -1:]
