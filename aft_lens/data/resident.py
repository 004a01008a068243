"""A data set that lives on the training device and is augmented a batch at a time."""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torchvision.transforms import v2

from aft_lens.data.source import UNCOUNTED, DataSource, Images, share_size

RESIDENT_AUGMENTATIONS = ("none", "shift", "flip-crop")
"""Augmentations of `train_transform` that have a form for whole batches, drawn from the same distributions."""


class ResidentBatches:
    """Batches (normalised images `b c y x`, classes `b`) of images held on a device as uint8.

    With `order`, which gives the seed of each pass, iterating draws a new order and drops the last incomplete batch;
    augmentations come from PyTorch's global random state. With a `share` (rank, processes) each process gets its
    part of every batch of `batch_size * processes` images; of images in their order the parts are equally long, and
    what was added has the label `UNCOUNTED`. Raises ValueError on an augmentation that is none of
    `RESIDENT_AUGMENTATIONS`, or if the split is read from files.
    """

    def __init__(
        self,
        data: DataSource,
        part: str,
        batch_size: int,
        *,
        device: torch.device | str = "cpu",
        augment: str = "none",
        order: Callable[[], int] | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        split = getattr(data, part)
        if not isinstance(split, Images):
            raise ValueError(f"data.resident is for data sets in memory, {data.name!r} is read from files; set it to "
                             "false")  # fmt: skip
        if augment not in RESIDENT_AUGMENTATIONS:
            raise ValueError(
                f"data.augment must be one of {RESIDENT_AUGMENTATIONS} with data.resident, got {augment!r}"
            )
        resize = v2.Resize((data.img_size, data.img_size), antialias=True)
        self.images = resize(split.images).to(device)
        self.labels = split.labels.to(device)
        self.mean, self.std = (torch.tensor(v, device=device).reshape(1, -1, 1, 1) for v in (data.mean, data.std))
        self.batch_size, self.augment, self.order, self.share = batch_size, augment, order, share

    def __len__(self) -> int:
        count = share_size(len(self.images), self.share[1], filled=self.order is None)
        return count // self.batch_size if self.order else -(-count // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        count, (rank, processes) = len(self.images), self.share
        index = torch.arange(share_size(count, processes, filled=True) * processes)
        if self.order is not None:
            index = torch.randperm(count, generator=torch.Generator().manual_seed(self.order()))
        index = index[rank::processes].to(self.images.device)
        labels = self.labels[index % count].where(index < count, UNCOUNTED)
        index %= count
        for number in range(len(self)):
            part = slice(number * self.batch_size, (number + 1) * self.batch_size)
            yield self._normalise(augmented(self.images[index[part]], self.augment)), labels[part]

    def _normalise(self, images: UInt8[Tensor, "b c y x"]) -> Float[Tensor, "b c y x"]:
        return (images.float().div_(255) - self.mean) / self.std


def augmented(images: UInt8[Tensor, "b c y x"], augment: str) -> UInt8[Tensor, "b c y x"]:
    """A batch with every image moved (and flipped) on its own; pixels from beyond the border are 0.

    "shift" moves by up to 1/8 of the side along each axis; "flip-crop" by up to max(1, side // 8) pixels, and
    flips half of the images from left to right.
    """
    if augment == "none":
        return images
    b, _, rows, columns = images.shape
    device = images.device
    if augment == "shift":
        reach = torch.tensor([[rows], [columns]], device=device) / 8
        move = (torch.rand(2, b, device=device).mul_(2).sub_(1) * reach).round().long()
        margin = -(-max(rows, columns) // 8)
    else:
        margin = max(1, columns // 8)
        move = torch.randint(-margin, margin + 1, (2, b), device=device)
    y = torch.arange(rows, device=device) + margin + move[0].unsqueeze(1)
    x = torch.arange(columns, device=device) + margin + move[1].unsqueeze(1)
    if augment == "flip-crop":
        x = torch.where(torch.rand(b, 1, device=device) < 0.5, x.flip(1), x)
    padded = torch.nn.functional.pad(images, (margin,) * 4)
    image = torch.arange(b, device=device).reshape(b, 1, 1)
    return padded.movedim(1, -1)[image, y.unsqueeze(2), x.unsqueeze(1)].movedim(-1, 1).contiguous()
