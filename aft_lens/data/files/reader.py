"""What worker processes do for a batch of image files: read bytes, draw what is random, decode what a GPU does not."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from aft_lens.data.augment.draw import Augmentation, Draw, uniforms
from aft_lens.data.augment.view import Size, View, show
from aft_lens.data.files.arrays import DrawArrays, Stored, stack, upright
from aft_lens.data.files.jpeg import read_head
from aft_lens.data.image import ImageError, read_image, to_pixels
from aft_lens.data.source import UNCOUNTED, Transformed

Drawn = tuple[int, int | None]
"""Number of an image in its split, and the seed of what is random in it; None: nothing is."""
BAD_FILES = ("skip", "stop")
"""What to do about a file that cannot be read: go on with another image in its place, or raise."""
LARGE = 4
"""Times an image's pixels above which the box of a picture that it shows is resized by a worker, not on the GPU: what
workers have ready is bounded by it, 600 kB an image of 224 pixels."""
T = TypeVar("T")


@dataclass(frozen=True)
class Bad:
    """A file that cannot be read."""

    path: str
    why: str


@dataclass(frozen=True)
class Batch:
    """A batch that is finished: images `b c y x` and labels `b`."""

    images: Tensor
    labels: Tensor
    bad: list[Bad] = field(default_factory=list)


@dataclass(frozen=True)
class Packed:
    """A batch as it goes to a GPU: encoded files, pictures that are decoded, and what is random in each."""

    drawn: list[Drawn]
    numbers: list[int]
    """Of the images that are there: another one's in the place of a bad file."""
    files: Tensor
    """Bytes of the files that are still encoded, one after the other."""
    lengths: list[int]
    """Of each file in that."""
    pictures: Tensor
    """Bytes of pictures that are decoded and cut to their boxes already, one after the other."""
    begins: list[int]
    """Where each picture begins in that."""
    stored: list[Stored]
    """Of each image, how it lies in memory once it is decoded."""
    order: list[int]
    """For each image its place: 0 and up among files, -1 and down among pictures."""
    draws: DrawArrays
    labels: Tensor
    bad: list[Bad]


@dataclass(frozen=True)
class _Item:
    """One image before it is packed."""

    index: int
    content: np.ndarray
    stored: Stored
    draw: Draw
    encoded: bool


class Files(Dataset[Any]):
    """The image files of a split as batches: `files[[(index, seed), …]]` is a `Batch`, or `Packed` where `encoded`.

    A file that cannot be read raises ImageError, or with `bad_files` "skip" the next image of the batch takes its
    place; that has its own label in training, and `UNCOUNTED` where nothing is random. `on_cpu` are numbers of images
    that Pillow reads whatever their head says.
    """

    def __init__(self, split: Transformed, augmentation: Augmentation, *, encoded: bool, bad_files: str) -> None:
        self.split, self.augmentation, self.encoded, self.bad_files = split, augmentation, encoded, bad_files
        self.on_cpu: set[int] = set()

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, drawn: Sequence[Drawn]) -> Batch | Packed:
        return self.packed(drawn) if self.encoded else self.finished(drawn)

    def finished(self, drawn: Sequence[Drawn]) -> Batch:
        """The batch, made on the CPU."""
        images, labels, bad = self._each(drawn, self._image)
        return Batch(torch.stack(images), labels, bad)

    def packed(self, drawn: Sequence[Drawn]) -> Packed:
        """The batch for a GPU."""
        items, labels, bad = self._each(drawn, self._item)
        files = [item for item in items if item.encoded]
        pictures = [item for item in items if not item.encoded]
        place = {True: iter(range(len(files))), False: iter(range(-1, -1 - len(pictures), -1))}
        return Packed(
            list(drawn),
            [item.index for item in items],
            _joined([item.content for item in files]),
            [len(item.content) for item in files],
            _joined([item.content for item in pictures]),
            np.cumsum([0, *(len(item.content) for item in pictures)])[:-1].tolist(),
            [item.stored for item in items],
            [next(place[item.encoded]) for item in items],
            stack([item.draw for item in items], [item.stored for item in items]),
            labels,
            bad,
        )

    def _each(self, drawn: Sequence[Drawn], make: Callable[[int, int | None], T]) -> tuple[list[T], Tensor, list[Bad]]:
        """What `make` makes of every image, or of the next one for a file that is bad; labels; bad files."""
        made: list[T | None] = []
        bad, labels = [], self.split.labels[[max(index, 0) for index, _ in drawn]]
        for place, (index, seed) in enumerate(drawn):
            try:
                made.append(make(max(index, 0), seed))
            except (ImageError, OSError) as error:
                if self.bad_files == "stop":
                    raise
                made.append(None)
                bad.append(Bad(self._name(max(index, 0)), str(error)))
            if index < 0:
                labels[place] = UNCOUNTED
        good = [place for place, item in enumerate(made) if item is not None]
        if not good:
            raise ImageError(f"none of {len(drawn)} images of a batch can be read, the first: {bad[0].why}")
        whole: list[T] = []
        for place, item in enumerate(made):
            if item is None:
                other = next((each for each in good if each > place), good[0])
                item = made[other]
                labels[place] = UNCOUNTED if drawn[place][1] is None else labels[other]
            assert item is not None
            whole.append(item)
        return whole, labels, bad

    def _image(self, index: int, seed: int | None) -> Tensor:
        """A finished image."""
        pixels = self._pixels(index)
        return self.augmentation.apply(pixels, self._draw((pixels.shape[1], pixels.shape[2]), seed))

    def _item(self, index: int, seed: int | None) -> _Item:
        """A file as it is, where the GPU decodes it; else what it shows of its picture."""
        path = self.split.path(index)
        if path is not None and index not in self.on_cpu:
            data = np.fromfile(path, np.uint8)
            head = read_head(data.tobytes())
            if head is not None:
                stored = Stored((head.rows, head.columns), head.orientation)
                return _Item(index, data, stored, self._draw(upright(stored.size, head.orientation), seed), True)
        pixels = self._pixels(index).permute(1, 2, 0).numpy()
        return self._cut(index, pixels, self._draw((pixels.shape[0], pixels.shape[1]), seed))

    def _cut(self, index: int, pixels: np.ndarray, draw: Draw) -> _Item:
        """The box of pixels `y x c` that is shown; a very large one is resized."""
        view, size = draw.view, self.augmentation.size
        top, left, rows, columns = view.box
        if rows * columns > LARGE * size[0] * size[1]:
            planar = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)
            pixels = show(planar, view, self.augmentation.resampling).permute(1, 2, 0).numpy()
            view = View((0, 0, *size), size, size)
        else:
            pixels = pixels[top : top + rows, left : left + columns]
            view = replace(view, box=(0, 0, rows, columns))
        stored = Stored((pixels.shape[0], pixels.shape[1]))
        return _Item(index, np.ascontiguousarray(pixels).reshape(-1), stored, replace(draw, view=view), False)

    def _pixels(self, index: int) -> Tensor:
        """The whole picture, by Pillow."""
        path = self.split.path(index)
        picture = read_image(path) if path is not None else self.split.source[self.split.indices[index]][0]
        return to_pixels(picture, len(self.augmentation.mean))

    def _name(self, index: int) -> str:
        return self.split.path(index) or f"image {self.split.indices[index]}"

    def _draw(self, picture: Size, seed: int | None) -> Draw:
        return self.augmentation.draw(picture, () if seed is None else uniforms(seed))


def _joined(parts: Sequence[np.ndarray]) -> Tensor:
    """Bytes one after the other, in one piece of memory."""
    whole = torch.empty(sum(map(len, parts)), dtype=torch.uint8)
    if parts:
        np.concatenate(parts, out=whole.numpy())
    return whole
