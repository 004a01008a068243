"""What the forms of few offsets share: a few images at a time in reused memory, and e^w with its peak taken out."""

from collections.abc import Iterator

import torch
from torch import Tensor

CHUNK = 1_250_000
"""Values handled at a time where no gradient is asked, so that the temporaries stay in the caches."""


def images_a_chunk(value: Tensor) -> int:
    """Images of a value `b h c t` that are handled at a time."""
    return min(len(value), max(1, CHUNK // max(1, value.shape[1:].numel())))


def chunks(
    size: int, query: Tensor | None, key: Tensor, value: Tensor, mean: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor | None]]:
    """Key, value, result and query (if any) of `size` images at a time."""
    queries = [None] * len(value) if query is None else query.reshape(value.shape).split(size)
    return zip(key.split(size), value.split(size), mean.split(size), queries)


def pool_factors(w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """With a = max(0, max_i w_i): e^-a, shape `h 1`; e^(w - a) and e^(w - a) - e^-a, shape `h k`."""
    shift = w.amax(1, keepdim=True).clamp(min=0.0).detach()
    scale, own = torch.exp(-shift), torch.exp(w - shift)
    return scale, own, torch.where(w > 1.0, own - scale, scale * torch.expm1(w.clamp(max=1.0)))
