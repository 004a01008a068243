"""A few images kept beside a checkpoint, so that it can be looked at where its data set is not."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from aft_lens.data.image import read_image, to_pixels
from aft_lens.data.source import UNCOUNTED, DataSource, Images
from aft_lens.data.transforms import eval_transform
from aft_lens.later import later

if TYPE_CHECKING:
    from torchvision.transforms.v2 import functional as F
else:
    F = later("torchvision.transforms.v2.functional")

FOLDER = "samples"
"""Of a checkpoint folder, where the images are."""
SAMPLES = 32


def save_samples(data: DataSource, checkpoint: Path) -> None:
    """Write the first test images of a data set in memory as PNG files named by number and class index."""
    if not isinstance(data.test, Images):
        raise ValueError(f"data must be held in memory to save samples of, {data.name!r} is read from files")
    folder = checkpoint / FOLDER
    folder.mkdir(exist_ok=True)
    for i in range(min(SAMPLES, len(data.test))):
        F.to_pil_image(data.test.images[i]).save(folder / f"{i:02d}-{int(data.test.labels[i])}.png")


def load_samples(record: Mapping[str, Any], checkpoint: Path) -> DataSource:
    """A checkpoint's data (`record`) with its sample images as every split; FileNotFoundError if it has none.

    A file is named by its number and class index, as 07-3.png, or by its number alone: then its class does not count.
    """
    files = sorted((checkpoint / FOLDER).glob("*.png"))
    if not files:
        raise FileNotFoundError(f"{checkpoint / FOLDER} holds no sample images; get the data set {record['name']!r}")
    images = torch.stack([to_pixels(read_image(file), record["in_chans"]) for file in files])
    labels = torch.tensor([int(file.stem.partition("-")[2] or UNCOUNTED) for file in files])
    kept = Images(images, labels, eval_transform(record["img_size"], record["mean"], record["std"]))
    kind = "photographs without classes are" if bool((labels == UNCOUNTED).all()) else "test images are"
    words = f"{len(files)} {kind} kept beside the checkpoint, as every split"
    return DataSource(**record, train=kept, val=kept, test=kept, split=words)
