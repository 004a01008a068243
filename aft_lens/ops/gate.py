"""The query's gate, which every operator ends with."""

import torch
from torch import Tensor


def gate(query: Tensor | None, mean: Tensor, dtype: torch.dtype) -> Tensor:
    """Multiply by sigmoid(query) unless the query is left out, and return in `dtype`."""
    if query is not None:
        mean = torch.sigmoid(query.to(mean.dtype)) * mean
    return mean.to(dtype)
