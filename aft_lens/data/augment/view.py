"""Which part of a picture an image shows, and at what size: geometry in whole numbers, and its form for one picture."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import UInt8
from torch import Tensor

from aft_lens.later import later

if TYPE_CHECKING:
    from torchvision.transforms.v2 import functional as F
else:
    F = later("torchvision.transforms.v2.functional")

Size = tuple[int, int]
"""Rows and columns, in pixels."""
TRIES = 10
"""Crops that are drawn for an image, to take the first that fits."""


@dataclass(frozen=True)
class View:
    """A box of a picture, resized; the part of that which is shown; that part moved and flipped."""

    box: tuple[int, int, int, int]
    """Top, left, rows and columns in the picture."""
    resized: Size
    """To which the box is resized, antialiased."""
    size: Size
    """Of the image."""
    start: Size = (0, 0)
    """Of the image in the resized box."""
    move: Size = (0, 0)
    """Pixel (y, x) shows what would be at (y, x) + move; beyond the image it is 0."""
    flip: bool = False
    """From left to right, in the end."""


def fit_view(picture: Size, size: Size, crop: float = 1.0) -> View:
    """What `fit` shows of a picture: its centre crop, or with `crop` 1 all of it, squeezed."""
    whole = (0, 0, *picture)
    if crop == 1:
        return View(whole, size, size)
    rows, columns = (int(side / crop + 1e-6) for side in size)  # as in `fit`
    if size[0] == size[1]:
        short, long = sorted(picture)
        longer = int(rows * long / short)
        rows, columns = (rows, longer) if picture[0] <= picture[1] else (longer, rows)
    start = (round((rows - size[0]) / 2), round((columns - size[1]) / 2))
    return View(whole, (rows, columns), size, start)


def crop_view(
    picture: Size, size: Size, area: tuple[float, float], ratio: tuple[float, float], uniform: Sequence[float]
) -> View:
    """A random box of the picture, resized to the image: RandomResizedCrop of torchvision and timm.

    area: the box's share of the picture, from and to. ratio: its width over its height. uniform: 2 `TRIES` + 2 numbers
    in [0, 1). The first of `TRIES` drawn boxes that fits is taken, else the largest in the middle with such a ratio.
    """
    rows, columns = picture
    low, high = (math.log(value) for value in ratio)
    for share, shape in zip(uniform[:TRIES], uniform[TRIES : 2 * TRIES], strict=True):
        drawn = rows * columns * (area[0] + (area[1] - area[0]) * share)
        aspect = math.exp(low + (high - low) * shape)
        width, height = round(math.sqrt(drawn * aspect)), round(math.sqrt(drawn / aspect))
        if 0 < width <= columns and 0 < height <= rows:
            top, left = uniform[2 * TRIES : 2 * TRIES + 2]
            return View((int(top * (rows - height + 1)), int(left * (columns - width + 1)), height, width), size, size)
    height = min(rows, round(columns / ratio[0]))
    width = min(columns, round(rows * ratio[1]))
    return View(((rows - height) // 2, (columns - width) // 2, height, width), size, size)


def moved_view(view: View, reach: int, uniform: Sequence[float]) -> View:
    """The view moved by up to `reach` pixels along each axis; two numbers in [0, 1)."""
    y, x = (int(value * (2 * reach + 1)) - reach for value in uniform)
    return replace(view, move=(y, x))


def show(pixels: UInt8[Tensor, "c y x"], view: View, interpolation: str) -> UInt8[Tensor, "c rows columns"]:
    """What a view shows of a picture; `interpolation` is a value of torchvision's `InterpolationMode`."""
    top, left, rows, columns = view.box
    box = pixels[:, top : top + rows, left : left + columns]
    resized = F.resize(box, list(view.resized), F.InterpolationMode(interpolation), antialias=True)
    y, x = view.start
    shown = resized[:, y : y + view.size[0], x : x + view.size[1]]
    if view.move != (0, 0):
        (y, x), (rows, columns) = view.move, view.size
        still = shown
        shown = torch.zeros_like(still)
        target, source = zip(*(_shifted(step, side) for step, side in ((y, rows), (x, columns))), strict=True)
        shown[:, target[0], target[1]] = still[:, source[0], source[1]]
    return shown.flip(-1) if view.flip else shown


def _shifted(step: int, side: int) -> tuple[slice, slice]:
    """Where pixels of an axis are after they moved by -`step`, and where they came from."""
    return slice(max(0, -step), max(0, min(side, side - step))), slice(max(0, step), max(0, min(side, side + step)))
