"""What a form needs to know besides its tensors, and the dtype it sums in."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Spec:
    """What a form needs to know besides its tensors."""

    form: str
    """A form, or an operator whose form follows from the shapes: "conv" or "local"."""
    grid: tuple[int, ...]
    window: int = -1
    """Eq. 4's s: pairs at |t - t'| >= s have no bias; -1: every pair has one."""
    causal: bool = False
    outside: str = "global"


def accumulate_dtype(*tensors: Tensor) -> torch.dtype:
    """float64 where one of the tensors is float64, float32 for everything narrower."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


def unnarrowed(tensor: Tensor) -> AbstractContextManager[object]:
    """Inside, autocast makes no product on the tensor's device narrower; meta tensors know no autocast."""
    return nullcontext() if tensor.is_meta else torch.autocast(tensor.device.type, enabled=False)
