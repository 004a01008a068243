"""What every data set is handed over as, and the sampler that repeats augmented images."""

from collections.abc import Iterator, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler


@dataclass(frozen=True)
class DataSource:
    """A data set by name with its splits; items are (normalised image `c y x`, class index)."""

    name: str
    classes: list[str]
    mean: list[float]
    """By channel, in [0, 1] image units."""
    std: list[float]
    """By channel, in [0, 1] image units."""
    in_chans: int
    img_size: int
    """Side of the square images, in pixels."""
    train: "Images | Transformed"
    val: "Images | Transformed"
    test: "Images | Transformed"
    split: str
    """How the splits were made, in words."""

    def record(self) -> dict[str, Any]:
        """What a checkpoint keeps of its data."""
        keys = ("name", "classes", "mean", "std", "in_chans", "img_size")
        return {key: getattr(self, key) for key in keys}


class Images(Dataset[tuple[Tensor, int]]):
    """Images held in memory, `n c y x` uint8, with a transform applied on reading."""

    def __init__(self, images: Tensor, labels: Tensor, transform: Any) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), int(self.labels[index])


class Transformed(Dataset[tuple[Tensor, int]]):
    """A subset of an (image, label) data set, with a transform applied on reading."""

    def __init__(self, source: Any, transform: Any, indices: list[int] | None = None) -> None:
        self.source, self.transform = source, transform
        self.indices = list(range(len(source))) if indices is None else indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.source[self.indices[index]]
        return self.transform(image), int(label)


class RepeatedAugmentation(Sampler[int]):
    """Each drawn image `repeats` times in a row, an epoch as long as the data set (Hoffer et al. 2020, in DeiT).

    The Trainer wraps it in its distributed sampler, which deals neighbours to different processes.
    """

    def __init__(self, data: Sized, repeats: int) -> None:
        if repeats < 1:
            raise ValueError(f"repeats must be at least 1, got {repeats}")
        self.length, self.repeats = len(data), repeats

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        drawn = torch.randperm(self.length)[: -(-self.length // self.repeats)]
        return iter(drawn.repeat_interleave(self.repeats)[: self.length].tolist())
