r"""`forms.one_offset` where |w| <= 50 nats and every head has a readable key: e^w itself, in half the time.

The source s at a target's offset decides what the target gets. With e = e^(K - max), a = max(0, w), and the sums
E = sum_r e_r, N = sum_r e_r V_r,

    mean_s = (e^-a N + f e_s V_s) / (e^-a E + f e_s),    f = e^(w - a) - e^-a,    out_t = mean_{s(t)}

or N / E where the offset leaves the grid. For w < 0 this takes (1 - e^w) e_s out of a sum again, which is at most
half of E unless s is the source of the largest key. That one alone is added up without it,

    mean_s = (e^-a sum_{r != s} e_r V_r + e^(w - a) e_s V_s) / (e^-a sum_{r != s} e_r + e^(w - a) e_s)

so no denominator is the small difference of two large numbers, and it has e^-50 of the largest weight at least, where
float32 ends at e^-87.
"""

import torch
from torch import Tensor

from aft_lens.ops.forms.in_place import chunks, images_a_chunk, pool_factors

MILD = 50.0
"""Largest |w| in nats."""


def is_mild(key: Tensor, w: Tensor) -> bool:
    """Whether this form computes key `b h t` and w `h 1`; no for a GPU's, which would have to be waited for."""
    return not w.is_cuda and bool(w.abs().max() <= MILD) and bool((key.amax(-1) > float("-inf")).all())


def mild(key: Tensor, value: Tensor, w: Tensor, places: Tensor) -> Tensor:
    """Weighted mean `b h c t` of key `b h t`, value `b h c t` and w `h 1`, with gradients.

    `places` `h t` is the source of each target, t where there is none.
    """
    scale, own, factor = pool_factors(w)
    high, top = key.max(-1, keepdim=True)
    weight = torch.exp(key - high.detach())
    first, weight = weight.gather(-1, top), weight.scatter(-1, top, 0.0)
    weighted, column = value * weight.unsqueeze(2), top.unsqueeze(2).expand(*value.shape[:3], 1)
    rest, rest_den = weighted.sum(-1, keepdim=True), weight.sum(-1, keepdim=True)
    best = value.gather(3, column) * first.unsqueeze(2)
    pooled, total = (rest + best) * scale.unsqueeze(2), (rest_den + first) * scale
    own_num = rest * scale.unsqueeze(2) + best * own.unsqueeze(2)
    num = (pooled + weighted * factor.unsqueeze(2)).scatter(3, column, own_num)
    den = (total + weight * factor).scatter(-1, top, rest_den * scale + first * own)
    means = torch.cat([num / den.unsqueeze(2), pooled / total.unsqueeze(2)], dim=-1)
    return means.gather(3, places.unsqueeze(1).expand(value.shape))


def mild_in_place(query: Tensor | None, key: Tensor, value: Tensor, w: Tensor, places: Tensor) -> Tensor:
    """`mild` and the gate, a few images at a time in reused memory: fresh memory costs more than the sums."""
    scale, own, factor = pool_factors(w)
    _, h, c, t = value.shape
    mean = torch.empty_like(value)
    size = images_a_chunk(value)
    spare, gate = value.new_empty(size, h, c, t + 1), torch.empty_like(value[:size])
    weights, inverses = torch.empty_like(key[:size]), torch.empty_like(key[:size])
    for k, v, out, q in chunks(size, query, key, value, mean):
        b = len(k)
        weight, inverse, means = weights[:b], inverses[:b], spare[:b, ..., :t]
        high, top = k.max(-1, keepdim=True)
        column = top.unsqueeze(2).expand(b, h, c, 1)
        first = torch.sub(k, high, out=weight).exp_().gather(-1, top)  # 1, or NaN
        weight.scatter_(-1, top, 0.0)
        rest = torch.mul(v, weight.unsqueeze(2), out=means).sum(-1, keepdim=True)
        rest_den = weight.sum(-1, keepdim=True)
        best = v.gather(3, column).mul_(first.unsqueeze(2))
        pooled, total = (rest + best).mul_(scale.unsqueeze(2)), (rest_den + first).mul_(scale)
        own_den = rest_den * scale + first * own
        torch.add(weight.mul_(factor), total, out=inverse).scatter_(-1, top, own_den).reciprocal_()
        torch.mul(pooled, inverse.unsqueeze(2), out=means).addcmul_(v, weight.mul_(inverse).unsqueeze(2))
        own_num = (rest * scale.unsqueeze(2)).addcmul_(best, own.unsqueeze(2))
        means.scatter_(3, column, own_num.mul_(inverse.gather(-1, top).unsqueeze(2)))
        torch.div(pooled, total.unsqueeze(2), out=spare[:b, ..., t:])
        torch.gather(spare[:b], 3, places.unsqueeze(1).expand(v.shape), out=out)
        if q is not None:
            out.mul_(torch.sigmoid(q.to(out.dtype), out=gate[:b]))
    return mean
