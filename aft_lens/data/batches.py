"""Fixed batches of a data set, for what goes through the same images again."""

from typing import Any

import torch
from torch import Tensor

from aft_lens.data.source import DataSource, representative

BATCH = 64
"""Images a batch; latencies are measured on one batch."""


def batches(source: DataSource, images: int | None = None, split: str = "test") -> list[tuple[Tensor, Tensor]]:
    """`images` images (all if None) that stand for a split, with their labels, in batches of `BATCH`.

    The first ones of data whose classes are mixed, a fixed draw over the classes of files (see `representative`).
    Raises ValueError if `images` < 1.
    """
    if images is not None and images < 1:
        raise ValueError(f"images must be 1 or more, got {images}")
    items: Any = getattr(source, split)
    chosen = representative(items, images)
    result = []
    for start in range(0, len(chosen), BATCH):
        pairs = [items[i] for i in chosen[start : start + BATCH]]
        result.append((torch.stack([image for image, _ in pairs]), torch.tensor([int(label) for _, label in pairs])))
    return result
