"""CIFAR-10 and CIFAR-100: 60,000 colour images of 32 x 32 pixels."""

from pathlib import Path

import torch
from torchvision import datasets

from aft_lens.data.build import from_tensors, with_validation
from aft_lens.data.dataset import DATASETS, DataSet
from aft_lens.data.download import download
from aft_lens.data.source import DataSource

KINDS = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}


def load(name: str, *, root: Path, img_size: int | None, augment: str) -> DataSource:
    """By torchvision, which downloads it into `root`."""
    hint = f"connect once to download it, or unpack its Python archive below {root}"
    train, test = (download(KINDS[name], root, hint, train=part) for part in (True, False))
    splits, words = with_validation(
        *[(torch.from_numpy(d.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(d.targets)) for d in (train, test)]
    )
    return from_tensors(name, train.classes, splits, img_size=img_size or 32, augment=augment, words=words)


for _name in KINDS:
    DATASETS.add(_name, DataSet(load))
