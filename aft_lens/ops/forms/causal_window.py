"""Biases of the sources that a causal window reads, by target and distance: what the AFT-local kernel takes."""

import torch
from jaxtyping import Float
from torch import Tensor


def causal_window_bias(
    position_bias: Float[Tensor, "targets sources"], window_size: int
) -> Float[Tensor, "targets offset"]:
    """w by target t and offset t - t' = 0 ... window_size - 1, for sources that there are; O(T window_size) memory.

    Places before the first source hold a finite number that means nothing. Float32, also under autocast.
    """
    position = torch.arange(len(position_bias), device=position_bias.device)
    offset = torch.arange(window_size, device=position_bias.device)
    return position_bias.gather(1, (position.unsqueeze(1) - offset).clamp(min=0)).float()
