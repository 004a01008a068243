"""Fashion-MNIST: 70,000 grey images of 28 x 28 pixels."""

import gzip
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from aft_lens.data.build import from_tensors, with_validation
from aft_lens.data.dataset import DATASETS, DataSet
from aft_lens.data.download import download
from aft_lens.data.source import DataSource
from aft_lens.later import later

if TYPE_CHECKING:
    from torchvision import datasets
else:
    datasets = later("torchvision.datasets")

DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts its files."""


def load(name: str, *, root: Path, img_size: int | None, augment: str) -> DataSource:
    """From Debian's package or a folder of its four files, else by torchvision's download."""
    splits, words = with_validation(*_read(root))
    classes = datasets.FashionMNIST.classes
    return from_tensors(name, classes, splits, img_size=img_size or 28, augment=augment, words=words)


def _read(root: Path) -> list[tuple[Tensor, Tensor]]:
    """Training and test images with their labels."""
    for folder in (root / "fashion-mnist", DEBIAN_FASHION):
        if (folder / "train-images-idx3-ubyte.gz").is_file():
            return [
                (
                    _idx(folder / f"{part}-images-idx3-ubyte.gz").unsqueeze(1),
                    _idx(folder / f"{part}-labels-idx1-ubyte.gz").long(),
                )
                for part in ("train", "t10k")
            ]
    hint = f"install Debian's package dataset-fashion-mnist or put its four .gz files into {root / 'fashion-mnist'}"
    found = [download(datasets.FashionMNIST, root, hint, train=part) for part in (True, False)]
    return [(part.data.unsqueeze(1), part.targets) for part in found]


def _idx(path: Path) -> Tensor:
    """Read a gzipped IDX file of unsigned bytes."""
    raw = gzip.decompress(path.read_bytes())
    _, kind, rank = struct.unpack(">HBB", raw[:4])
    if kind != 8:
        raise ValueError(f"{path} holds IDX type {kind}, expected 8 (unsigned bytes); fetch the file again")
    shape = struct.unpack(f">{rank}I", raw[4 : 4 + 4 * rank])
    return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape).copy())


DATASETS.add("fashion-mnist", DataSet(load))
