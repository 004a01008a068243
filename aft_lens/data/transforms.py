"""Augmentation from torchvision's v2 transforms, from none to DeiT's whole recipe."""

from collections.abc import Sequence

import torch
from torchvision.transforms import v2

AUGMENTATIONS = ("none", "shift", "affine", "flip-crop", "deit")


def train_transform(augment: str, img_size: int, mean: Sequence[float], std: Sequence[float]) -> v2.Transform:
    """Image to normalised float tensor `c y x` with random changes.

    "shift" moves by up to 1/8 of the side; "affine" also rotates, scales and shears; "flip-crop" pads by 1/8,
    crops and flips; "deit" is RandAugment, random resized crop and random erasing (mixing of whole batches is
    `batch_transform`). Raises ValueError on another name.
    """
    if augment not in AUGMENTATIONS:
        raise ValueError(f"augment must be one of {AUGMENTATIONS}, got {augment!r}")
    steps: list[v2.Transform] = [v2.ToImage()]
    after: list[v2.Transform] = []
    bilinear = v2.InterpolationMode.BILINEAR
    if augment == "deit":
        steps += [v2.RandomResizedCrop(img_size, interpolation=v2.InterpolationMode.BICUBIC, antialias=True)]
        steps += [v2.RandomHorizontalFlip(), v2.RandAugment(num_ops=2, magnitude=9, interpolation=bilinear)]
        after = [v2.RandomErasing(p=0.25)]
    else:
        steps += [v2.Resize((img_size, img_size), antialias=True)]
    steps += [v2.ToDtype(torch.float32, scale=True)]
    if augment == "shift":
        steps += [v2.RandomAffine(0, translate=(0.125, 0.125), interpolation=bilinear)]
    elif augment == "affine":
        steps += [v2.RandomAffine(12, translate=(0.125, 0.125), scale=(0.85, 1.15), shear=8, interpolation=bilinear)]
    elif augment == "flip-crop":
        steps += [v2.RandomCrop(img_size, padding=max(1, img_size // 8)), v2.RandomHorizontalFlip()]
    return v2.Compose([*steps, v2.Normalize(list(mean), list(std)), *after])


def eval_transform(img_size: int, mean: Sequence[float], std: Sequence[float], *, crop: bool = False) -> v2.Transform:
    """Image to normalised float tensor `c y x`: squeezed to a square, or with `crop` ImageNet's centre crop."""
    if crop:
        resize = [v2.Resize(int(img_size / 0.875), antialias=True), v2.CenterCrop(img_size)]
    else:
        resize = [v2.Resize((img_size, img_size), antialias=True)]
    return v2.Compose(
        [v2.ToImage(), *resize, v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std))]
    )


def batch_transform(num_classes: int, mixup: float, cutmix: float) -> v2.Transform | None:
    """Mixup and CutMix with the given Beta parameters, one of them a batch; None where both are 0."""
    choices: list[v2.Transform] = []
    if mixup > 0:
        choices.append(v2.MixUp(alpha=mixup, num_classes=num_classes))
    if cutmix > 0:
        choices.append(v2.CutMix(alpha=cutmix, num_classes=num_classes))
    return v2.RandomChoice(choices) if choices else None
