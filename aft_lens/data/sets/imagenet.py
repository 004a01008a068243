"""ImageNet-1k: 1.28 million photos."""

from pathlib import Path
from typing import TYPE_CHECKING

from aft_lens.data.build import Part, from_files
from aft_lens.data.dataset import DATASETS, DataSet
from aft_lens.data.image import read_image
from aft_lens.data.source import DataSource
from aft_lens.later import later

if TYPE_CHECKING:
    from torchvision import datasets
else:
    datasets = later("torchvision.datasets")


def load(name: str, *, root: Path, img_size: int | None, augment: str) -> DataSource:
    """By torchvision from `root`/imagenet; its validation split serves as val and test."""
    folder = root / "imagenet"
    try:
        train, val = (datasets.ImageNet(str(folder), split=split, loader=read_image) for split in ("train", "val"))
    except (RuntimeError, OSError) as error:
        raise FileNotFoundError(
            f"data set imagenet is not in {folder} ({error}); get ILSVRC2012_devkit_t12.tar.gz and the "
            "train and val archives from image-net.org, and put them there"
        ) from error
    return from_files(
        name,
        [names[0] for names in train.classes],
        [Part(train), Part(val), Part(val)],
        img_size=img_size or 224,
        augment=augment,
        words="ImageNet's training split; its validation split as val and test",
    )


DATASETS.add("imagenet", DataSet(load, crop=True))
