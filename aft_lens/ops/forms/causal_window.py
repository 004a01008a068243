"""Biases of the sources that a causal window reads, by target and distance: what the AFT-local kernel takes."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from aft_lens.ops.bias import BiasFactors

CHUNK = 64
"""Targets whose products with their factors are taken at once; O(T (CHUNK + window) rank) time."""


def causal_window_bias(
    position_bias: Float[Tensor, "targets sources"] | BiasFactors, window_size: int
) -> Float[Tensor, "t offset"]:
    """w by target t and offset t - t' = 0 ... window_size - 1, for sources that there are; O(T window_size) memory.

    Places before the first source hold a finite number that means nothing. Float32, also under autocast.
    """
    if isinstance(position_bias, BiasFactors):
        with torch.autocast(position_bias.target.device.type, enabled=False):
            return _from_factors(position_bias.target.float(), position_bias.source.float(), window_size)
    position = torch.arange(len(position_bias), device=position_bias.device)
    offset = torch.arange(window_size, device=position_bias.device)
    return position_bias.gather(1, (position.unsqueeze(1) - offset).clamp(min=0)).float()


def _from_factors(target: Tensor, source: Tensor, window_size: int) -> Tensor:
    """A chunk of targets times the CHUNK + window_size - 1 sources that it can read, and its diagonals."""
    length, reach = len(target), window_size - 1
    count = -(-length // CHUNK)
    tail = count * CHUNK - length
    chunks = F.pad(target, (0, 0, 0, tail)).unflatten(0, (count, CHUNK))
    sources = F.pad(source, (0, 0, reach, tail)).unfold(0, CHUNK + reach, CHUNK)
    position, offset = (torch.arange(size, device=target.device) for size in (CHUNK, window_size))
    place = position.unsqueeze(1) + reach - offset
    return (chunks @ sources).gather(2, place.expand(count, -1, -1)).flatten(0, 1)[:length]
