"""Whether a call is differentiated forwards or by `torch.func`, where operators are computed by their definition."""

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import forward_ad


def transformed() -> bool:
    """Whether forward-mode derivatives are taken (`torch.autograd.forward_ad`) or a `torch.func` transform runs.

    The fast forms have a derivative of their own, backwards and once; neither `jvp` nor `vmap` can see into them.
    """
    return forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()


def unseen(tensor: Tensor) -> bool:
    """Whether a tensor's values cannot be looked at: it is traced, transformed, fake or on the meta device."""
    return torch.compiler.is_compiling() or tensor.is_meta or isinstance(tensor, FakeTensor) or transformed()


def check_plain(implementation: str) -> None:
    """Raise ValueError unless the implementation is the one that every transform goes through."""
    if implementation not in ("auto", "rowwise"):
        raise ValueError(
            f"implementation={implementation!r} has no forward-mode derivative and no torch.func transform; "
            'use "auto", which takes the definition there (`aft_lens.ops.reference`, T x T weights in float64)'
        )
