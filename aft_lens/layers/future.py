"""Keeping a token that is not finite from the targets before it, where a weight of 0 does not: 0 x NaN is NaN.

Attention and its kin multiply the weights of later sources, which are 0, with their values. AFT's operators do not.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def shielded(needed: bool, *parts: Float[Tensor, "b t _"]) -> tuple[Any, ...]:
    """Each part with 0 at the tokens that have a NaN or an infinity in one of them, then the targets from there on.

    The parts as they are, and None for the targets (`b t`), where it is not `needed`: without a causal order, and in
    training, where what is not finite reaches the loss anyhow.
    """
    if not needed:
        return *parts, None
    lost = ~torch.stack([part.isfinite().all(-1) for part in parts]).all(0)
    return *(part.masked_fill(lost.unsqueeze(-1), 0.0) for part in parts), lost.cummax(1).values


def exposed(mixed: Float[Tensor, "b t d"], lost: Bool[Tensor, "b t"] | None) -> Float[Tensor, "b t d"]:
    """NaN at the targets that come at or after a token that is not finite."""
    return mixed if lost is None else mixed.masked_fill(lost.unsqueeze(-1), float("nan"))
