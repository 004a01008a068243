"""From a picture to a model's input: fitted and normalised, or augmented from none to DeiT's whole recipe."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from aft_lens.data.image import fit, to_pixels
from aft_lens.later import later

if TYPE_CHECKING:
    from torchvision.transforms import v2
else:
    v2 = later("torchvision.transforms.v2")

CENTRE = 0.875
"""ImageNet's centre crop: its side as a fraction of the resized picture's shorter side."""
AUGMENTATIONS = ("none", "shift", "affine", "flip-crop", "resized-crop", "deit")
CROP_AREA, CROP_RATIO = (0.35, 1.0), (3 / 4, 4 / 3)
"""Of "resized-crop": the share of the picture that a crop has, and its width over its height."""


def train_transform(
    augment: str, img_size: int, mean: Sequence[float], std: Sequence[float], *, crop: bool = False
) -> "v2.Transform":
    """Image to normalised float tensor `c y x` with random changes of what `eval_transform` shows of it.

    "shift" moves by up to 1/8 of the side; "affine" also rotates, scales and shears; "flip-crop" pads by 1/8, crops and
    flips; "resized-crop" takes a crop of any size from the picture as it is and flips; "deit" is RandAugment, random
    resized crop and random erasing (mixing of whole batches is `batch_transform`). Raises ValueError on another name.
    """
    if augment not in AUGMENTATIONS:
        raise ValueError(f"augment must be one of {AUGMENTATIONS}, got {augment!r}")
    steps: list[Callable[..., Any]] = [partial(to_pixels, channels=len(mean)), v2.ToImage()]
    after: list[v2.Transform] = []
    bilinear = v2.InterpolationMode.BILINEAR
    if augment == "resized-crop":
        steps += [v2.RandomResizedCrop(img_size, CROP_AREA, CROP_RATIO, antialias=True), v2.RandomHorizontalFlip()]
    elif augment == "deit":
        steps += [v2.RandomResizedCrop(img_size, interpolation=v2.InterpolationMode.BICUBIC, antialias=True)]
        steps += [v2.RandomHorizontalFlip(), v2.RandAugment(num_ops=2, magnitude=9, interpolation=bilinear)]
        after = [v2.RandomErasing(p=0.25)]
    else:
        kept = CENTRE if crop else 1.0
        steps = [partial(fit, size=(img_size, img_size), channels=len(mean), crop=kept), v2.ToImage()]
    steps += [v2.ToDtype(torch.float32, scale=True)]
    if augment == "shift":
        steps += [v2.RandomAffine(0, translate=(0.125, 0.125), interpolation=bilinear)]
    elif augment == "affine":
        steps += [v2.RandomAffine(12, translate=(0.125, 0.125), scale=(0.85, 1.15), shear=8, interpolation=bilinear)]
    elif augment == "flip-crop":
        steps += [v2.RandomCrop(img_size, padding=max(1, img_size // 8)), v2.RandomHorizontalFlip()]
    return v2.Compose([*steps, v2.Normalize(list(mean), list(std)), *after])


def eval_transform(img_size: int, mean: Sequence[float], std: Sequence[float], *, crop: bool = False) -> "v2.Transform":
    """Picture to normalised float tensor `c y x`: squeezed to a square, or with `crop` ImageNet's centre crop."""
    return fit_transform((img_size, img_size), mean, std, crop=CENTRE if crop else 1.0)


def fit_transform(
    size: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    *,
    crop: float = 1.0,
    interpolation: str = "bilinear",
) -> "v2.Transform":
    """Picture (PIL, or uint8 `c y x`) to normalised float `c y x` with the channels of `mean`; the rest as in `fit`."""
    fitted = partial(fit, size=size, channels=len(mean), crop=crop, interpolation=interpolation)
    return v2.Compose([fitted, v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std))])


def batch_transform(num_classes: int, mixup: float, cutmix: float) -> "v2.Transform | None":
    """Mixup and CutMix with the given Beta parameters, one of them a batch; None where both are 0."""
    choices: list[v2.Transform] = []
    if mixup > 0:
        choices.append(v2.MixUp(alpha=mixup, num_classes=num_classes))
    if cutmix > 0:
        choices.append(v2.CutMix(alpha=cutmix, num_classes=num_classes))
    return v2.RandomChoice(choices) if choices else None
