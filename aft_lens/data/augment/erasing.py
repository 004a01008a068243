"""Random erasing by noise for every pixel (Zhong et al. 2020, as in DeiT), the same noise on every device."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

PROBABILITY = 0.25
AREA, RATIO = (0.02, 1 / 3), (0.3, 1 / 0.3)
"""Of the box: its share of the image, and its height over its width."""
TRIES = 10
"""Boxes that are drawn, to take the first that fits."""
NUMBERS = 2 * TRIES + 4
"""Uniform numbers that an image takes."""
_MASK = 0xFFFFFFFF


@dataclass(frozen=True)
class Erased:
    """A box of an image that noise takes the place of."""

    box: tuple[int, int, int, int]
    """Top, left, rows and columns, in pixels."""
    seed: int
    """Of the noise, 32 bits."""


def drawn_box(uniform: Sequence[float], size: tuple[int, int]) -> Erased | None:
    """The box that is erased, from `NUMBERS` numbers in [0, 1); None for three images of four, and where none fits."""
    whether, top, left, seed, *tries = uniform
    if whether >= PROBABILITY:
        return None
    rows, columns = size
    low, high = (math.log(value) for value in RATIO)
    for share, shape in zip(tries[:TRIES], tries[TRIES:], strict=True):
        area = rows * columns * (AREA[0] + (AREA[1] - AREA[0]) * share)
        aspect = math.exp(low + (high - low) * shape)
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if height < rows and width < columns:
            box = (int(top * (rows - height + 1)), int(left * (columns - width + 1)), height, width)
            return Erased(box, int(seed * 2**32))
    return None


def erase(image: Float[Tensor, "c y x"], erased: Erased) -> Float[Tensor, "c y x"]:
    """A normalised image with standard normal noise in the box."""
    top, left, rows, columns = erased.box
    place = slice(top, top + rows), slice(left, left + columns)
    number = torch.arange(image.numel()).view(image.shape)[:, place[0], place[1]]
    image = image.clone()
    image[:, place[0], place[1]] = noise(number, erased.seed)
    return image


def noise(number: Tensor, seed: int) -> Tensor:
    """Standard normal numbers, float32, that depend on `number` (int64, below 2^31) and a seed of 32 bits alone.

    Two hashes of 24 bits (murmur3's finalizer) and the Box-Muller transform.
    """
    first, second = (_uniform(2 * number + i, seed) for i in range(2))
    return torch.sqrt(-2 * torch.log(first)) * torch.cos(2 * math.pi * second)


def _uniform(number: Tensor, seed: int) -> Tensor:
    """Float32 in (0, 1)."""
    return ((_mixed(_mixed(number) ^ seed) >> 8).float() + 0.5) * 2.0**-24


def _mixed(number: Tensor) -> Tensor:
    """Murmur3's finalizer of 32 bits, in int64."""
    number = number & _MASK
    number = ((number ^ (number >> 16)) * 0x85EBCA6B) & _MASK
    number = ((number ^ (number >> 13)) * 0xC2B2AE35) & _MASK
    return number ^ (number >> 16)
