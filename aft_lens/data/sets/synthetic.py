"""Uniform noise with ImageNet's classes, to measure speed with; nothing can be learned from it."""

from pathlib import Path

import torch

from aft_lens.data.build import IMAGENET, from_tensors
from aft_lens.data.dataset import DATASETS, DataSet
from aft_lens.data.source import DataSource
from aft_lens.data.split import SPLIT_SEED

COUNT, DRAWN = 8192, 256
"""Training images if no number is given, and how many of them differ; as many validate and test."""


def load(name: str, *, root: Path, img_size: int | None, augment: str) -> DataSource:
    """`synthetic` or `synthetic:COUNT`, so many training images, drawn with a fixed seed."""
    _, given, count = name.partition(":")
    count = count if given else str(COUNT)
    if not count.isdecimal() or int(count) < 1:
        raise ValueError(f"data name {name!r} must be synthetic or synthetic:COUNT with COUNT 1 or more")
    side = img_size or 224
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    splits = {}
    for part, size in (("train", int(count)), ("val", DRAWN), ("test", DRAWN)):
        images = torch.randint(0, 256, (DRAWN, 3, side, side), dtype=torch.uint8, generator=generator)
        index = torch.arange(size) % DRAWN
        splits[part] = images[index], torch.randint(0, 1000, (DRAWN,), generator=generator)[index]
    return from_tensors(
        name, [str(number) for number in range(1000)], splits, img_size=side, augment=augment,
        words="drawn with a fixed seed", normalisation=IMAGENET,
    )  # fmt: skip


DATASETS.add("synthetic", DataSet(load, argument="COUNT"))
