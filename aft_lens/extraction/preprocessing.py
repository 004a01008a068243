"""How images must come to a model, and batches of a data set that come so."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from aft_lens.data import (
    CENTRE,
    FILES_BY,
    FileBatches,
    batches_of,
    fit_transform,
    is_cropped,
    load_data,
    representative,
    some,
)
from aft_lens.data.augment.draw import Augmentation
from aft_lens.data.source import DRAW_SEED, Images, Transformed

INTERPOLATIONS = ("nearest", "nearest-exact", "bilinear", "bicubic")
"""How pixels can be resized: torchvision's modes for tensors."""
LARGEST = 4096
"""Side of an input, in pixels."""


@dataclass(frozen=True)
class Preprocessing:
    """Size, channels and normalisation that a model was trained with, from its library's own configuration.

    Raises ValueError unless there are one or three channels, and on values that no image can be prepared by.
    """

    size: tuple[int, int]
    """Rows and columns of the input, in pixels."""
    mean: tuple[float, ...]
    """By channel, in [0, 1] image units; as many as the model has input channels."""
    std: tuple[float, ...]
    """By channel, in [0, 1] image units."""
    crop: float = 1.0
    """Fraction of the resized image that the centre crop keeps, by side; 1 squeezes the whole image to `size`."""
    interpolation: str = "bilinear"
    """Of resizing: a value of torchvision's `InterpolationMode`."""

    def __post_init__(self) -> None:
        if len(self.mean) not in (1, 3) or len(self.std) != len(self.mean):
            raise ValueError(f"mean and std must have one entry for each of 1 or 3 channels, got {len(self.mean)} and "
                             f"{len(self.std)}; prepare images for such a model yourself")  # fmt: skip
        if not all(map(math.isfinite, (*self.mean, *self.std))) or min(self.std) <= 0:
            raise ValueError(f"mean and std must be finite and std above 0, got {self.mean} and {self.std}")
        if not 0 < self.crop <= 1 or not all(1 <= side <= LARGEST for side in self.size):
            raise ValueError(
                f"images must have sides of 1 to {LARGEST} pixels and a crop above 0, up to 1; got {self.size} and "
                f"{self.crop}"
            )
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"resampling must be one of {', '.join(INTERPOLATIONS)}, got {self.interpolation!r}; write the nearest "
                "of them into the model's own configuration"
            )

    @classmethod
    def of_record(cls, record: Mapping[str, Any], size: tuple[int, int] | None = None) -> "Preprocessing":
        """As the data was prepared that a checkpoint of ours keeps a record of, at its own size or another one."""
        side = record["img_size"]
        crop, by = (CENTRE, FILES_BY) if is_cropped(record["name"]) else (1.0, "bilinear")
        return cls(size or (side, side), tuple(record["mean"]), tuple(record["std"]), crop=crop, interpolation=by)

    def transform(self, *, crop: bool = True) -> Augmentation:
        """Picture (PIL, or uint8 `c y x`) to normalised float `c y x`; `crop=False` squeezes the whole image instead.

        A grey image is repeated to three channels, a coloured one becomes its luma for a model of one channel.
        """
        kept = self.crop if crop else 1.0
        return fit_transform(self.size, self.mean, self.std, crop=kept, interpolation=self.interpolation)


class Drawn(Subset[tuple[Tensor, int]]):
    """The images of a split that stand for it."""

    @property
    def words(self) -> str:
        """Which of the split's images these are."""
        of = len(self.dataset)  # type: ignore[arg-type]
        if len(self) == of:
            return f"all {of} images"
        if list(self.indices) == list(range(len(self))):
            return f"the first {len(self)} of {of} images"
        return f"{len(self)} of {of} images, drawn with seed {DRAW_SEED}"


def image_batches(
    preprocessing: Preprocessing,
    data: str,
    *,
    images: int,
    split: str = "test",
    batch_size: int = 64,
    root: Path | str | None = None,
    labelled: bool = False,
    skip: int = 0,
    device: torch.device | str = "cpu",
) -> DataLoader[Any] | FileBatches:
    """Batches (image `b c y x`, class index `b`) of images that stand for a data set's split, as a model takes them.

    `data` and `root` are as in `load_data`. Which `images` are taken, `representative` says: the first of data whose
    classes are mixed, a fixed draw over the classes of files that are sorted by them; the first `skip` of it are left
    out. Images in memory (digits, Fashion-MNIST, CIFAR) are squeezed whole to the model's size; image files get its
    centre crop, and come to a GPU that is the `device` already there. `labelled` refuses images without classes. The
    loader's `dataset` is a `Drawn`. Raises ValueError if `images` < 1, and as `load_data` does.
    """
    if images < 1:
        raise ValueError(f"images must be 1 or more, got {images}")
    source = prepare(getattr(load_data(data, root=root, labelled=labelled), split), preprocessing)
    drawn = Drawn(source, representative(source, images)[skip:])
    chosen = some(source, drawn.indices) if isinstance(source, Transformed) else drawn
    return batches_of(chosen, batch_size, device=device, dataset=drawn)


def drawn_words(batches: Iterable[Any]) -> str:
    """Which of a data set's images the batches hold, where they are `image_batches`; else nothing is known of it."""
    data = getattr(batches, "dataset", None)
    return data.words if isinstance(data, Drawn) else ""


def prepare(source: Images | Transformed, preprocessing: Preprocessing) -> Images | Transformed:
    """The same split with a model's own preprocessing in place of the data set's."""
    if isinstance(source, Images):
        return Images(source.images, source.labels, preprocessing.transform(crop=False))
    return Transformed(source.source, preprocessing.transform(), source.indices)


def channels(values: Sequence[float], count: int) -> tuple[float, ...]:
    """One value a channel: as they are, or their mean where the model takes another number of channels."""
    if len(values) == count:
        return tuple(float(value) for value in values)
    return (sum(values) / len(values),) * count
