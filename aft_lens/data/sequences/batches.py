"""Batches of training windows, drawn and augmented on the device that trains."""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Int
from torch import Tensor

from aft_lens.data.sequences.source import Pixels, SequenceSource, Stream
from aft_lens.data.source import share_size

LEVELS = 10
"""Most that "levels" adds to or takes from all sub-pixels of an image (Sec. 5.1)."""
SEQUENCE_AUGMENTATIONS = ("none", "levels", "flip-levels")


class SequenceBatches:
    """Batches (inputs `b t`, targets `b t`) of a split's windows in a new order at each pass, on a device.

    `order` gives the seed of a pass; augmentations and the places of text come from PyTorch's global random state. The
    last incomplete batch is dropped. With a `share` (rank, processes) each process gets its part of every batch of
    `batch_size * processes` windows. Raises ValueError on an augmentation that is none of `SEQUENCE_AUGMENTATIONS`, and
    on one of text.
    """

    def __init__(
        self,
        data: SequenceSource,
        batch_size: int,
        order: Callable[[], int],
        *,
        device: torch.device | str = "cpu",
        augment: str = "none",
        share: tuple[int, int] = (0, 1),
    ) -> None:
        if augment not in SEQUENCE_AUGMENTATIONS:
            raise ValueError(f"data.augment must be one of {SEQUENCE_AUGMENTATIONS} for sequences, got {augment!r}")
        if augment != "none" and not data.grid:
            raise ValueError(f"data.augment {augment} is for images; set it to none for {data.name!r}")
        self.split: Pixels | Stream = data.train.to(device)
        self.grid, self.device = data.grid, torch.device(device)
        self.batch_size, self.order, self.augment, self.share = batch_size, order, augment, share
        self.first = self.done = 0

    def __len__(self) -> int:
        return share_size(len(self.split), self.share[1], filled=False) // self.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        rank, processes = self.share
        index = torch.randperm(len(self.split), generator=torch.Generator().manual_seed(self.order()))
        self.done, self.first = self.first, 0
        for part in index[rank::processes].split(self.batch_size)[self.done : len(self)]:
            self.done += 1
            symbols = self.split.drawn(part)
            if self.augment != "none":
                symbols[:, 1:] = changed(symbols[:, 1:], self.grid, flip=self.augment == "flip-levels")
            yield symbols[:, :-1], symbols[:, 1:]

    def state_dict(self) -> dict[str, int]:
        """How many windows of this pass all processes have had."""
        return {"windows": self.done % len(self) * self.batch_size * self.share[1]}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin the next pass behind those."""
        self.first = state["windows"] // (self.batch_size * self.share[1])


def changed(images: Int[Tensor, "b t"], grid: tuple[int, ...], *, flip: bool) -> Int[Tensor, "b t"]:
    """Images with a number of -10 ... 10 added to all their sub-pixels, clipped to 0 ... 255; `flip` turns half of them
    from left to right first (Sec. 5.1)."""
    if flip:
        turned = images.unflatten(1, grid).flip(2).flatten(1)
        images = torch.where(torch.rand(len(images), 1, device=images.device) < 0.5, turned, images)
    moved = images + torch.randint(-LEVELS, LEVELS + 1, (len(images), 1), device=images.device)
    return moved.clamp(0, 255)
