"""Fixed batches of a data set, for what goes through the same images again."""

from typing import Any

import torch
from torch import Tensor

from aft_lens.data.source import DataSource, representative
from aft_lens.errors import InputError

BATCH = 64
"""Images a batch; latencies are measured on one batch."""
MOST_BYTES = 2**30
"""Of images that are held in memory."""


def batches(source: DataSource, images: int | None = None, split: str = "test") -> list[tuple[Tensor, Tensor]]:
    """`images` images (all if None) that stand for a split, with their labels, in batches of `BATCH`.

    The first ones of data whose classes are mixed, a fixed draw over the classes of files (see `representative`).
    Raises ValueError if `images` < 1, and InputError where they would take more than `MOST_BYTES`.
    """
    if images is not None and images < 1:
        raise ValueError(f"images must be 1 or more, got {images}")
    items: Any = getattr(source, split)
    chosen = representative(items, images)
    size = len(chosen) * source.in_chans * source.img_size**2 * 4
    if size > MOST_BYTES:
        raise InputError(
            f"{len(chosen)} images of {source.img_size} × {source.img_size} pixels take {size / 2**30:.1f} GiB, more "
            "than a page may; choose fewer, or use the command in a terminal"
        )
    result = []
    for start in range(0, len(chosen), BATCH):
        pairs = [items[i] for i in chosen[start : start + BATCH]]
        result.append((torch.stack([image for image, _ in pairs]), torch.tensor([int(label) for _, label in pairs])))
    return result
