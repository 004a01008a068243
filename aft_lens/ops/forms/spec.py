"""What a form needs to know besides its tensors, and the dtype it sums in."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Spec:
    """What a form needs to know besides its tensors."""

    form: str
    grid: tuple[int, ...]
    window: int = -1
    """Eq. 4's s: pairs at |t - t'| >= s have no bias; -1: every pair has one."""
    causal: bool = False
    outside: str = "global"


def accumulate_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, float32 for everything narrower."""
    return torch.float64 if dtype == torch.float64 else torch.float32
