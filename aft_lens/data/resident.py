"""A data set that lives on the training device and is augmented a batch at a time."""

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from aft_lens.data.augment.draw import AREAS, RATIO
from aft_lens.data.augment.view import TRIES
from aft_lens.data.source import UNCOUNTED, DataSource, Images, share_size
from aft_lens.later import later

if TYPE_CHECKING:
    from torchvision.transforms import v2
else:
    v2 = later("torchvision.transforms.v2")

RESIDENT_AUGMENTATIONS = ("none", "shift", "flip-crop", "resized-crop")
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
        self.side = data.img_size
        own = augment == "resized-crop"  # which crops pictures of their own size
        resize = v2.Identity() if own else v2.Resize((self.side, self.side), antialias=True)
        self.images = resize(split.images).to(device)
        self.labels = split.labels.to(device)
        self.mean, self.std = (torch.tensor(v, device=device).reshape(1, -1, 1, 1) for v in (data.mean, data.std))
        self.batch_size, self.augment, self.order, self.share = batch_size, augment, order, share
        self.first = self.done = 0

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
        first, self.first = self.first, 0
        for number in range(first, len(self)):
            self.done = number + 1
            part = slice(number * self.batch_size, (number + 1) * self.batch_size)
            yield self._normalise(augmented(self.images[index[part]], self.augment, self.side)), labels[part]

    def state_dict(self) -> dict[str, int]:
        """How many images of this pass all processes have had."""
        return {"images": self.done % len(self) * self.batch_size * self.share[1]}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin the next pass behind those."""
        self.first = state["images"] // (self.batch_size * self.share[1])

    def _normalise(self, images: UInt8[Tensor, "b c y x"]) -> Float[Tensor, "b c y x"]:
        return (images.float().div_(255) - self.mean) / self.std


def augmented(images: UInt8[Tensor, "b c y x"], augment: str, side: int) -> UInt8[Tensor, "b c y2 x2"]:
    """A batch with every image moved (and flipped) on its own; pixels from beyond the border are 0.

    "shift" moves by up to 1/8 of the side along each axis; "flip-crop" by up to max(1, side // 8) pixels, and
    flips half of the images from left to right; "resized-crop" resizes a random crop to a square of `side` pixels.
    """
    if augment == "none":
        return images
    return resized_crops(images, side) if augment == "resized-crop" else _moved(images, augment)


def resized_crops(images: UInt8[Tensor, "b c y x"], side: int) -> UInt8[Tensor, "b c side side"]:
    """Each image's own random crop, resized to a square by bilinear interpolation; half of them flipped.

    Crops have the law of torchvision's RandomResizedCrop: the first of ten drawn ones that fits into the picture.
    """
    b, device = len(images), images.device
    area = torch.empty(TRIES, b, device=device).uniform_(*AREAS["resized-crop"])
    ratio = torch.empty(TRIES, b, device=device).uniform_(*(math.log(value) for value in RATIO)).exp()
    tried = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()])  # x, y; 1 is the picture
    first = (tried <= 1).all(0).int().argmax(0)
    size = tried[:, first, torch.arange(b, device=device)].clamp(max=1.0)
    middle = (torch.rand(2, b, device=device) * 2 - 1) * (1 - size)
    turn = torch.where(torch.rand(b, device=device) < 0.5, -1.0, 1.0)
    theta = torch.zeros(b, 2, 3, device=device)
    theta[:, 0, 0], theta[:, 0, 2], theta[:, 1, 1], theta[:, 1, 2] = size[0] * turn, middle[0], size[1], middle[1]
    grid = F.affine_grid(theta, [b, images.shape[1], side, side], align_corners=False)
    return F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False).round_().to(torch.uint8)


def _moved(images: UInt8[Tensor, "b c y x"], augment: str) -> UInt8[Tensor, "b c y x"]:
    """Every image moved on its own, and flipped for "flip-crop"."""
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
    padded = F.pad(images, (margin,) * 4)
    image = torch.arange(b, device=device).reshape(b, 1, 1)
    return padded.movedim(1, -1)[image, y.unsqueeze(2), x.unsqueeze(1)].movedim(-1, 1).contiguous()
