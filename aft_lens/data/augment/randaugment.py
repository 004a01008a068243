"""RandAugment as DeiT trains with it: timm's `rand-m9-mstd0.5-inc1`, its operations by Pillow.

Two of fifteen operations in a row, drawn with replacement, each left out half of the time, at a magnitude from the
normal distribution of mean 9 and deviation 0.5, in [0, 10] (Cubuk et al. 2020; Touvron et al. 2021, DeiT, Table 9).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

LAYERS = 2
"""Operations in a row."""
MAGNITUDE = NormalDist(9.0, 0.5)
LARGEST = 10.0
LEFT_OUT = 0.5
"""Probability that a drawn operation is not done."""
NUMBERS = 4
"""Uniform numbers that an operation takes: which, whether, how much, which way."""

Matrix = tuple[float, float, float, float, float, float]
"""(a, b, c, d, e, f): the pixel whose middle is (x, y) shows (a x + b y + c, d x + e y + f)."""


@dataclass(frozen=True)
class Change:
    """An operation on one image, with everything that is random in it."""

    name: str
    table: np.ndarray | None = None
    """Every value's new value, 256 bytes, where that is all the operation does."""
    factor: float = 1.0
    """How much of the image is blended into what lacks the property: 1 is the image, above it more than there was."""
    matrix: Matrix | None = None


def drawn_change(uniform: Sequence[float], size: tuple[int, int]) -> Change | None:
    """One operation from `NUMBERS` numbers in [0, 1), None where it is left out; `size` is that of the image."""
    which, whether, much, way = uniform
    if whether >= 1 - LEFT_OUT:
        return None
    name = NAMES[int(which * len(NAMES))]
    level = min(LARGEST, max(0.0, MAGNITUDE.inv_cdf(min(max(much, 1e-12), 1 - 1e-12)))) / LARGEST
    return OPERATIONS[name](name, level, -1.0 if way < 0.5 else 1.0, size)


def change(picture: Image.Image, done: Change, fill: Sequence[int]) -> Image.Image:
    """A picture (RGB or L) after an operation; `fill` is the colour of what comes in from outside, by channel."""
    if done.table is not None:
        return picture.point([*done.table.tolist()] * len(picture.getbands()))
    if done.matrix is not None:
        colour = tuple(fill) if len(fill) > 1 else fill[0]
        return picture.transform(
            picture.size, Image.Transform.AFFINE, done.matrix, Image.Resampling.BICUBIC, fillcolor=colour
        )
    return WHOLE[done.name](picture, done.factor)


def fill_colour(mean: Sequence[float]) -> tuple[int, ...]:
    """The data's mean colour, in bytes by channel."""
    return tuple(min(255, round(255 * value)) for value in mean)


def _sharpen(picture: Image.Image, factor: float) -> Image.Image:
    return Image.blend(picture.filter(ImageFilter.SMOOTH), picture, factor)


WHOLE: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "autocontrast": lambda picture, _: ImageOps.autocontrast(picture),
    "equalize": lambda picture, _: ImageOps.equalize(picture),
    "contrast": lambda picture, factor: ImageEnhance.Contrast(picture).enhance(factor),
    "colour": lambda picture, factor: ImageEnhance.Color(picture).enhance(factor),
    "sharpness": _sharpen,
}
"""Operations that depend on the whole picture or on several of its values."""


def _plain(name: str, level: float, sign: float, size: tuple[int, int]) -> Change:
    return Change(name)


def _blend(name: str, level: float, sign: float, size: tuple[int, int]) -> Change:
    return Change(name, factor=float(np.float32(max(0.1, 1.0 + sign * 0.9 * level))))


def _brightness(name: str, level: float, sign: float, size: tuple[int, int]) -> Change:
    factor = np.float32(max(0.1, 1.0 + sign * 0.9 * level))
    return Change(name, table=np.clip(_LEVELS.astype(np.float32) * factor, 0, 255).astype(np.uint8))


def _invert(name: str, level: float, sign: float, size: tuple[int, int]) -> Change:
    return Change(name, table=(255 - _LEVELS).astype(np.uint8))


def _posterize(name: str, level: float, sign: float, size: tuple[int, int]) -> Change:
    bits = 4 - int(4 * level)  # none at the largest magnitude: black, which Pillow itself refuses
    return Change(name, table=(_LEVELS & ~(2 ** (8 - bits) - 1)).astype(np.uint8))


def _solarize(name: str, level: float, sign: float, size: tuple[int, int]) -> Change:
    threshold = 256 - min(256, int(256 * level))
    return Change(name, table=np.where(threshold > _LEVELS, _LEVELS, 255 - _LEVELS).astype(np.uint8))


def _solarize_add(name: str, level: float, sign: float, size: tuple[int, int]) -> Change:
    more = np.minimum(255, _LEVELS + min(128, int(110 * level)))
    return Change(name, table=np.where(_LEVELS < 128, more, _LEVELS).astype(np.uint8))


def _rotate(name: str, level: float, sign: float, size: tuple[int, int]) -> Change:
    angle = -math.radians(sign * 30 * level)
    cosine, sine = round(math.cos(angle), 15), round(math.sin(angle), 15)
    y, x = size[0] / 2, size[1] / 2
    return Change(name, matrix=(cosine, sine, x - cosine * x - sine * y, -sine, cosine, y + sine * x - cosine * y))


def _shear_x(name: str, level: float, sign: float, size: tuple[int, int]) -> Change:
    return Change(name, matrix=(1.0, sign * 0.3 * level, 0.0, 0.0, 1.0, 0.0))


def _shear_y(name: str, level: float, sign: float, size: tuple[int, int]) -> Change:
    return Change(name, matrix=(1.0, 0.0, 0.0, sign * 0.3 * level, 1.0, 0.0))


def _translate_x(name: str, level: float, sign: float, size: tuple[int, int]) -> Change:
    return Change(name, matrix=(1.0, 0.0, sign * 0.45 * level * size[1], 0.0, 1.0, 0.0))


def _translate_y(name: str, level: float, sign: float, size: tuple[int, int]) -> Change:
    return Change(name, matrix=(1.0, 0.0, 0.0, 0.0, 1.0, sign * 0.45 * level * size[0]))


_LEVELS = np.arange(256)
OPERATIONS: dict[str, Callable[[str, float, float, tuple[int, int]], Change]] = {
    "autocontrast": _plain,
    "equalize": _plain,
    "invert": _invert,
    "rotate": _rotate,
    "posterize": _posterize,
    "solarize": _solarize,
    "solarize_add": _solarize_add,
    "colour": _blend,
    "contrast": _blend,
    "brightness": _brightness,
    "sharpness": _blend,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
}
"""How each operation follows from level in [0, 1], sign and image size; the order is timm's."""
NAMES: tuple[Any, ...] = tuple(OPERATIONS)
