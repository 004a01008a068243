"""Weighted means from factored weights, and the row-wise form that never underflows."""

import torch
from torch import Tensor

SAFE_DENOMINATOR = 1e-25
"""Below this a float32 denominator may have lost terms to underflow (float32 ends near 1e-38)."""


def accumulate_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, float32 for everything narrower."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def gate(query: Tensor | None, mean: Tensor, dtype: torch.dtype) -> Tensor:
    """Multiply by sigmoid(query) unless the query is left out, and return in `dtype`."""
    if query is not None:
        mean = torch.sigmoid(query.to(mean.dtype)) * mean
    return mean.to(dtype)


def exp_key(key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """exp(K - max_s K), shape `b h 1 t`, and the same times the value, shape `b h c t` (Eq. 6 with exp(K))."""
    weight = torch.exp(key - key.amax(-1, keepdim=True).detach()).unsqueeze(2)
    return weight, weight * value


def rowwise(key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Mean of values under softmax_s(key_s + bias_ts), each target with its joint maximum.

    Shapes: key `b h s`, value `b h c s`, bias `h t s`; result `b h c t`. Holds T x T a head and image at a time
    it computes, so it is the exact form for extreme inputs, not the fast one.
    """
    rows = [
        torch.softmax(k.unsqueeze(-2) + bias, dim=-1) @ v.transpose(-1, -2)
        for k, v in zip(key.unbind(0), value.unbind(0), strict=True)
    ]
    return torch.stack(rows).transpose(-1, -2)
