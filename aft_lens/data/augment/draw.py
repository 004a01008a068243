"""Everything random in one training image, drawn from its own numbers, and applied to one picture on the CPU."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from aft_lens.data.augment.erasing import NUMBERS as ERASING
from aft_lens.data.augment.erasing import Erased, drawn_box, erase
from aft_lens.data.augment.randaugment import LAYERS, NUMBERS, Change, change, drawn_change, fill_colour
from aft_lens.data.augment.view import TRIES, Size, View, crop_view, fit_view, moved_view, show
from aft_lens.data.image import to_pixels
from aft_lens.later import later

if TYPE_CHECKING:
    from torchvision.transforms.v2 import functional as F
else:
    F = later("torchvision.transforms.v2.functional")

UNIFORMS = 1 + 2 * TRIES + 2 + LAYERS * NUMBERS + ERASING
"""Numbers in [0, 1) that an image takes, whatever its augmentation uses of them."""
RATIO = (3 / 4, 4 / 3)
"""Width over height of random boxes."""
AREAS = {"resized-crop": (0.35, 1.0), "deit": (0.08, 1.0)}
"""Share of the picture that the random boxes of an augmentation have."""
INTERPOLATIONS = {"deit": "bicubic"}
"""By which an augmentation resizes, where it is not bilinear."""
DRAWN = ("none", "flip-crop", "resized-crop", "deit")
"""Augmentations that are drawn here: those that have a form for batches of files on a GPU."""


@dataclass(frozen=True)
class Draw:
    """What is random in an image."""

    view: View
    changes: tuple[Change | None, ...] = ()
    """RandAugment's operations, None for one that is left out."""
    erased: Erased | None = None


@dataclass(frozen=True)
class Augmentation:
    """A named augmentation of pictures, with the size and normalisation of the images that come of it."""

    name: str
    size: Size
    mean: Sequence[float]
    """By channel, in [0, 1] image units."""
    std: Sequence[float]
    """By channel, in [0, 1] image units."""
    crop: float = 1.0
    """What the views that are not drawn keep of a picture; see `fit`."""
    interpolation: str = ""
    """By which pictures are resized; empty: as the augmentation does."""

    @property
    def resampling(self) -> str:
        """A value of torchvision's `InterpolationMode`."""
        return self.interpolation or INTERPOLATIONS.get(self.name, "bilinear")

    def draw(self, picture: Size, uniform: Sequence[float]) -> Draw:
        """What `UNIFORMS` numbers in [0, 1) make of a picture of that size; "none" takes no numbers."""
        if self.name == "none":
            return Draw(fit_view(picture, self.size, self.crop))
        flip, boxes, rest = uniform[0] < 0.5, uniform[1 : 2 * TRIES + 3], uniform[2 * TRIES + 3 :]
        if self.name == "flip-crop":
            reach = max(1, self.size[1] // 8)
            view = moved_view(fit_view(picture, self.size, self.crop), reach, boxes[:2])
        else:
            view = crop_view(picture, self.size, AREAS[self.name], RATIO, boxes)
        view = replace(view, flip=flip)
        if self.name != "deit":
            return Draw(view)
        layers = [rest[NUMBERS * i : NUMBERS * (i + 1)] for i in range(LAYERS)]
        changes = tuple(drawn_change(numbers, self.size) for numbers in layers)
        return Draw(view, changes, drawn_box(rest[NUMBERS * LAYERS :], self.size))

    def apply(self, pixels: Tensor, draw: Draw) -> Tensor:
        """The normalised image, float32 `c y x`, that a draw makes of uint8 pixels `c y x`."""
        pixels = show(pixels, draw.view, self.resampling)
        if any(draw.changes):
            picture, fill = F.to_pil_image(pixels), fill_colour(self.mean)
            for done in filter(None, draw.changes):
                picture = change(picture, done, fill)
            pixels = F.pil_to_tensor(picture)
        image = F.normalize(F.to_dtype(pixels, torch.float32, scale=True), list(self.mean), list(self.std))
        return image if draw.erased is None else erase(image, draw.erased)

    def __call__(self, picture: Any) -> Tensor:
        """A picture, or pixels `c y x`, as an image; drawn from PyTorch's global random state."""
        pixels = to_pixels(picture, len(self.mean))
        rows, columns = pixels.shape[1:]
        return self.apply(pixels, self.draw((rows, columns), uniforms(None) if self.name != "none" else ()))


def uniforms(seed: int | None) -> list[float]:
    """The numbers of an image: those of its seed, or the next ones of PyTorch's global random state (None)."""
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return torch.rand(UNIFORMS, dtype=torch.float64, generator=generator).tolist()
