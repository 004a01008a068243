"""How images must come to a model, and batches of a data set that come so."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Subset
from torchvision.transforms import v2

from aft_lens.data import load_data
from aft_lens.data.source import Images, Transformed


@dataclass(frozen=True)
class Preprocessing:
    """Size, channels and normalisation that a model was trained with, from its library's own configuration.

    Raises ValueError unless there are one or three channels.
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

    def transform(self, *, crop: bool = True) -> v2.Transform:
        """Image (PIL, or uint8 `c y x`) to normalised float `c y x`; `crop=False` squeezes the whole image instead.

        A grey image is repeated to three channels, a coloured one becomes its luma for a model of one channel.
        """
        mode = v2.InterpolationMode(self.interpolation)
        if crop and self.crop < 1:
            side = [int(pixels / self.crop + 1e-6) for pixels in self.size]
            target = side[0] if self.size[0] == self.size[1] else side
            resize = [v2.Resize(target, mode, antialias=True), v2.CenterCrop(list(self.size))]
        else:
            resize = [v2.Resize(list(self.size), mode, antialias=True)]
        colours: v2.Transform = v2.RGB() if len(self.mean) == 3 else v2.Grayscale(1)
        scale = v2.ToDtype(torch.float32, scale=True)
        return v2.Compose([v2.ToImage(), colours, *resize, scale, v2.Normalize(list(self.mean), list(self.std))])


def image_batches(
    preprocessing: Preprocessing,
    data: str,
    *,
    images: int,
    split: str = "test",
    batch_size: int = 64,
    root: Path | str | None = None,
) -> DataLoader[Any]:
    """Batches (image `b c y x`, class index `b`) of the first images of a data set's split, as a model takes them.

    `data` and `root` are as in `load_data`. Images in memory (digits, Fashion-MNIST, CIFAR) are squeezed whole to the
    model's size; image files get its centre crop. Raises ValueError if `images` < 1, and as `load_data` does.
    """
    if images < 1:
        raise ValueError(f"images must be 1 or more, got {images}")
    source = getattr(load_data(data, root=root), split)
    prepared = prepare(source, preprocessing)
    return DataLoader(Subset(prepared, range(min(images, len(source)))), batch_size)


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
