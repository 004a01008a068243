"""Data sources made of images in memory and of image files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from aft_lens.data.source import DataSource, Images, Transformed
from aft_lens.data.split import stratified
from aft_lens.data.transforms import eval_transform, train_transform

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation by channel, in [0, 1] image units."""
Labelled = tuple[Tensor, Tensor]
"""Images `n c y x` uint8 and class indices `n`."""


@dataclass(frozen=True)
class Part:
    """The images of one split: an (image, label) data set with its labels in `targets`, or some of it."""

    images: Any
    index: list[int] | None = None


def from_tensors(
    name: str,
    classes: Sequence[str],
    splits: Mapping[str, Labelled],
    *,
    img_size: int,
    augment: str,
    words: str,
    normalisation: tuple[Sequence[float], Sequence[float]] | None = None,
) -> DataSource:
    """A source of images in memory, squeezed to a square.

    `splits` has train, val and test, each in an order that mixes the classes; `words` says where they come from.
    `normalisation` is mean and standard deviation by channel, those of the training images if None.
    """
    if normalisation is None:
        pixels = splits["train"][0].float() / 255
        normalisation = (
            [round(value, 4) for value in pixels.mean((0, 2, 3)).tolist()],
            [round(value, 4) for value in pixels.std((0, 2, 3)).tolist()],
        )
    mean, std = (list(values) for values in normalisation)
    plain = eval_transform(img_size, mean, std)
    return DataSource(
        name, list(classes), mean, std, len(mean), img_size,
        Images(*splits["train"], train_transform(augment, img_size, mean, std)),
        Images(*splits["val"], plain), Images(*splits["test"], plain), words,
    )  # fmt: skip


def with_validation(train: Labelled, test: Labelled) -> tuple[dict[str, Labelled], str]:
    """Splits of a data set that has its own test images, and words for them: a tenth of train validates."""
    images, labels = train
    rest, held = stratified(labels.numpy(), 0.1)
    splits = {"train": (images[rest], labels[rest]), "val": (images[held], labels[held]), "test": test}
    return splits, "the data set's own test split; a fixed stratified tenth of its training images as val"


def from_files(
    name: str, classes: Sequence[str], parts: Sequence[Part], *, img_size: int, augment: str, words: str
) -> DataSource:
    """A source of image files (train, val, test) in colour, with ImageNet's normalisation and centre crop."""
    mean, std = IMAGENET
    plain = eval_transform(img_size, mean, std, crop=True)
    random = train_transform(augment, img_size, mean, std, crop=True)
    train, val, test = parts
    return DataSource(
        name, list(classes), list(mean), list(std), 3, img_size,
        Transformed(train.images, random, train.index), Transformed(val.images, plain, val.index),
        Transformed(test.images, plain, test.index), words,
    )  # fmt: skip
