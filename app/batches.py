"""Fixed batches of a data set, for analyses that go through the same images again."""

from typing import Any

import torch
from torch import Tensor

from aft_lens.data import DataSource

BATCH = 64
"""Images a batch; latencies are measured on one batch."""


def batches(source: DataSource, images: int | None = None, split: str = "test") -> list[tuple[Tensor, Tensor]]:
    """The first `images` images (all if None) of a split with their labels, in batches of `BATCH`."""
    items: Any = getattr(source, split)
    count = len(items) if images is None else min(images, len(items))
    result = []
    for start in range(0, count, BATCH):
        pairs = [items[i] for i in range(start, min(start + BATCH, count))]
        result.append((torch.stack([image for image, _ in pairs]), torch.tensor([int(label) for _, label in pairs])))
    return result
