"""Stripes: a data set of another package, found by `stripes = "dataset:STRIPES"` in the group aft_lens.datasets."""

from pathlib import Path

import torch

from aft_lens.data import DataSet, DataSource, from_tensors


def load(name: str, *, root: Path, img_size: int | None, augment: str) -> DataSource:
    """Lying and standing stripes, moved by a step from image to image; drawn here, so `root` is not read."""
    lying = torch.stack([((torch.arange(8) + step) % 4 < 2).expand(8, 8).T for step in range(4)])
    images = torch.stack([lying, lying.mT], 1).flatten(0, 1).unsqueeze(1).to(torch.uint8) * 255
    labels = torch.arange(len(images)) % 2
    splits = dict.fromkeys(("train", "val", "test"), (images, labels))
    words = "the same eight images in all splits"
    return from_tensors(name, ["lying", "standing"], splits, img_size=img_size or 8, augment=augment, words=words)


STRIPES = DataSet(load)
