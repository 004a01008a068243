"""From a picture to a model's input: fitted and normalised, or augmented from none to DeiT's whole recipe."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from aft_lens.data.augment.draw import DRAWN, Augmentation
from aft_lens.data.image import fit
from aft_lens.later import later

if TYPE_CHECKING:
    from torchvision.transforms import v2
else:
    v2 = later("torchvision.transforms.v2")

CENTRE = 0.875
"""ImageNet's centre crop: its side as a fraction of the resized picture's shorter side."""
FILES_BY = "bicubic"
"""How image files are resized for the centre crop, as DeiT evaluates: a value of torchvision's `InterpolationMode`."""
AUGMENTATIONS = ("none", "shift", "affine", "flip-crop", "resized-crop", "deit")


def train_transform(
    augment: str, img_size: int, mean: Sequence[float], std: Sequence[float], *, crop: bool = False
) -> "Augmentation | v2.Transform":
    """Image to normalised float tensor `c y x` with random changes of what `eval_transform` shows of it.

    "shift" moves by up to 1/8 of the side; "affine" also rotates, scales and shears; "flip-crop" pads by 1/8, crops and
    flips; "resized-crop" takes a crop of any size from the picture as it is and flips; "deit" is DeiT's: random resized
    crop, flip, RandAugment and random erasing (mixing of whole batches is `Mixing`). Raises ValueError on another name.
    """
    if augment not in AUGMENTATIONS:
        raise ValueError(f"augment must be one of {AUGMENTATIONS}, got {augment!r}")
    kept = CENTRE if crop else 1.0
    if augment in DRAWN:
        interpolation = FILES_BY if crop and augment in ("none", "flip-crop") else ""
        return Augmentation(augment, (img_size, img_size), mean, std, kept, interpolation)
    by = v2.InterpolationMode.BILINEAR
    shown = partial(fit, size=(img_size, img_size), channels=len(mean), crop=kept)
    moved = v2.RandomAffine(0, translate=(0.125, 0.125), interpolation=by)
    if augment == "affine":
        moved = v2.RandomAffine(12, translate=(0.125, 0.125), scale=(0.85, 1.15), shear=8, interpolation=by)
    return v2.Compose([shown, v2.ToImage(), v2.ToDtype(torch.float32, scale=True), moved, _normalise(mean, std)])


def _normalise(mean: Sequence[float], std: Sequence[float]) -> "v2.Transform":
    return v2.Normalize(list(mean), list(std))


def eval_transform(img_size: int, mean: Sequence[float], std: Sequence[float], *, crop: bool = False) -> Augmentation:
    """Picture to normalised float tensor `c y x`: squeezed to a square, or with `crop` ImageNet's centre crop.

    The crop is resized as DeiT does it, bicubic; what is squeezed bilinear.
    """
    by = FILES_BY if crop else "bilinear"
    return fit_transform((img_size, img_size), mean, std, crop=CENTRE if crop else 1.0, interpolation=by)


def fit_transform(
    size: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    *,
    crop: float = 1.0,
    interpolation: str = "bilinear",
) -> Augmentation:
    """Picture (PIL, or uint8 `c y x`) to normalised float `c y x` with the channels of `mean`; the rest as in `fit`."""
    return Augmentation("none", size, mean, std, crop, interpolation)


class Mixing:
    """Mixup and CutMix of whole batches, each half of the time where both are on (Zhang et al. 2018; Yun et al. 2019).

    An image is mixed with the one as far from the batch's end as it is from its beginning, as timm does it for DeiT:
    under repeated augmentation neighbours are the same image. Drawn from PyTorch's global random state on the CPU.
    """

    def __init__(self, num_classes: int, mixup: float, cutmix: float) -> None:
        self.num_classes, self.mixup, self.cutmix = num_classes, mixup, cutmix

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mixed images `b c y x`, and their labels `b` as shares `b class`."""
        cut = self.cutmix > 0 and (self.mixup <= 0 or bool(torch.rand(()) < 0.5))
        alpha = self.cutmix if cut else self.mixup
        share = float(torch._sample_dirichlet(torch.tensor([alpha, alpha], dtype=torch.float64))[0])
        if cut:
            images, share = _cut(images, share)
        else:
            images = torch.lerp(images.flip(0), images, share)
        own = F.one_hot(labels, self.num_classes).to(images.dtype)
        return images, torch.lerp(own.flip(0), own, share)


def _cut(images: Tensor, share: float) -> tuple[Tensor, float]:
    """Images with a box of their partners, which has 1 - `share` of the area as far as it lies inside; what is left."""
    rows, columns = images.shape[-2:]
    sides = [int(side * (1 - share) ** 0.5) for side in (rows, columns)]
    middles = [int(torch.randint(side, ())) for side in (rows, columns)]
    top, left = (max(middle - side // 2, 0) for middle, side in zip(middles, sides))
    bottom, right = (min(middle + (side + 1) // 2, most) for middle, side, most in zip(middles, sides, (rows, columns)))
    mixed = images.clone()
    mixed[..., top:bottom, left:right] = images.flip(0)[..., top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (rows * columns)


def batch_transform(num_classes: int, mixup: float, cutmix: float) -> Mixing | None:
    """Mixup and CutMix with the given Beta parameters, one of them a batch; None where both are 0."""
    return Mixing(num_classes, mixup, cutmix) if mixup > 0 or cutmix > 0 else None
