"""Fixed images for pruning: the whole test split, and calibration images from the training split."""

from dataclasses import dataclass
from typing import Any

import torch

import aft_lens.data
from aft_lens.data import (
    EpochOrder,
    FileBatches,
    ResidentBatches,
    batches_of,
    reading_workers,
    representative,
    some,
)
from aft_lens.data.source import Images as InMemory
from analyses.pruning.measuring.cost import Batches

BATCH = 256


@dataclass(frozen=True)
class Images:
    """The three sets that a rung needs; the test images never choose an offset."""

    test: Batches
    calibration: Batches
    train: ResidentBatches | FileBatches
    """For fine-tuning: batches on the device where the data set is in memory."""
    source: str


def load_images(
    record: dict[str, Any],
    *,
    data: str | None = None,
    test: int = 0,
    calibration: int = 512,
    seed: int = 0,
    device: str = "cpu",
    root: str | None = None,
    batch_size: int = 64,
) -> Images:
    """Images for a checkpoint whose data record is `record`, or of the data set `data` in their place.

    `test` limits the test images (0: all) to those that `representative` takes; `calibration` images are drawn from
    the training split with `seed`; `batch_size` and `device` are fine-tuning's, `root` has
    downloaded data. Raises ValueError if the checkpoint
    names no data set and none is given, or one with other classes.
    """
    name = data or record.get("name")
    if not name:
        raise ValueError("data must name the images to prune on, the checkpoint names none; give --data digits")
    source = aft_lens.data.load_data(name, root=root, img_size=record.get("img_size"))
    source.check_fits(record)
    order = torch.randperm(len(source.train), generator=torch.Generator().manual_seed(seed))
    chosen = some(source.train, order[:calibration].tolist())
    held = source.test if not test else some(source.test, representative(source.test, test))
    size = min(batch_size, len(source.train))
    train: ResidentBatches | FileBatches
    if isinstance(source.train, InMemory):
        train = ResidentBatches(source, "train", size, device=device, order=_drawn)
    else:
        workers = reading_workers() if torch.device(device).type == "cuda" else 0
        drawn = EpochOrder(source.train, _drawn, processes=1, rank=0)
        train = FileBatches(source.train, size, device=device, workers=workers, order=drawn)
    return Images(fixed_batches(held, device), fixed_batches(chosen, device), train, name)


def _drawn() -> int:
    """The seed of a pass over the training images, from the random state that fine-tuning sets."""
    return int(torch.randint(2**31, ()))


def fixed_batches(images: Any, device: torch.device | str = "cpu") -> Batches:
    """A data set's images and labels as batches held in memory; files are read by way of the device."""
    return [(x.cpu(), torch.as_tensor(y).cpu()) for x, y in batches_of(images, BATCH, device=device)]
