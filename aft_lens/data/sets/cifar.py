"""CIFAR-10 and CIFAR-100: 60,000 colour images of 32 x 32 pixels."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save

from aft_lens.data.build import Labelled, from_tensors, with_validation
from aft_lens.data.dataset import DATASETS, DataSet
from aft_lens.data.download import download
from aft_lens.data.image import fit, read_image
from aft_lens.data.source import DataSource
from aft_lens.files import write_whole
from aft_lens.later import later

if TYPE_CHECKING:
    from torchvision import datasets
else:
    datasets = later("torchvision.datasets")

SIDE = 32
KINDS = {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}


def load(name: str, *, root: Path, img_size: int | None, augment: str) -> DataSource:
    """From an unpacked folder NAME/{train,test}/CLASS of image files below `root`, else by torchvision's download."""
    folder = root / name
    if (folder / "train").is_dir() and (folder / "test").is_dir():
        classes = sorted(path.name for path in (folder / "train").iterdir())
        read = [_decoded(folder, part) for part in ("train", "test")]
    else:
        hint = f"connect once to download it, or unpack its Python archive below {root}, or images into {folder}"
        found = [download(getattr(datasets, KINDS[name]), root, hint, train=part) for part in (True, False)]
        classes = found[0].classes
        read = [(torch.from_numpy(d.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(d.targets)) for d in found]
    splits, words = with_validation(*read)
    return from_tensors(name, classes, splits, img_size=img_size or SIDE, augment=augment, words=words)


def _decoded(folder: Path, part: str) -> Labelled:
    """Every file of a part in memory; decoded once, by a thread a processor, and kept beside the part."""
    kept = folder / f"{part}.safetensors"
    if not kept.is_file():
        files = datasets.ImageFolder(folder / part)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            images = list(pool.map(lambda sample: fit(read_image(sample[0]), (SIDE, SIDE), 3), files.samples))
        write_whole(kept, save({"images": torch.stack(images), "labels": torch.tensor(files.targets)}))
    read = load_file(kept)
    return read["images"], read["labels"]


for _name in KINDS:
    DATASETS.add(_name, DataSet(load))
