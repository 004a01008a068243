"""What worker processes do for a batch of image files: read bytes, draw what is random, decode what a GPU does not."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from aft_lens.data.augment.draw import Augmentation, Draw, uniforms
from aft_lens.data.augment.view import Size, View, show
from aft_lens.data.files.arrays import DrawArrays, Stored, stack, turn_upright, upright
from aft_lens.data.files.content import Content
from aft_lens.data.files.jpeg import Head, read_head
from aft_lens.data.files.slots import Slots
from aft_lens.data.image import ImageError, read_image, to_pixels
from aft_lens.data.source import UNCOUNTED, Transformed
from aft_lens.later import later

if TYPE_CHECKING:
    from torchvision import io
else:
    io = later("torchvision.io")

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
class Wanted:
    """A batch that is asked for."""

    drawn: Sequence[Drawn]
    nvjpeg: bool = False
    """Whether the JPEG files that nvJPEG decodes are handed over as they are."""


@dataclass(frozen=True)
class Packed:
    """A batch as it goes to a GPU: encoded files, pictures that are decoded, and what is random in each."""

    drawn: Sequence[Drawn]
    numbers: list[int]
    """Of the images that are there: another one's in the place of a bad file."""
    content: Content
    """Bytes of files that are still encoded, and of pictures that are decoded and cut to their boxes, interleaved."""
    begins: list[int]
    """Where each image begins in that."""
    lengths: list[int]
    """Of each image that is still encoded, in bytes; 0 of the others."""
    stored: list[Stored]
    """Of each image, how it lies in memory once it is decoded."""
    draws: DrawArrays
    labels: Tensor
    bad: list[Bad]


@dataclass(frozen=True)
class _Item:
    """One image of a packed batch."""

    index: int
    begin: int
    length: int
    stored: Stored
    draw: Draw


class Files(Dataset[Any]):
    """The image files of a split as batches: `files[Wanted(…)]` is a `Batch`, or `Packed` for kernels that make images.

    A file that cannot be read raises ImageError, or with `bad_files` "skip" the next image of the batch takes its
    place; that has its own label in training, and `UNCOUNTED` where nothing is random. `on_cpu` are numbers of images
    that Pillow reads whatever their head says; `slots` has memory that worker processes write packed batches into.
    """

    def __init__(self, split: Transformed, augmentation: Augmentation, *, for_kernels: bool, bad_files: str) -> None:
        self.split, self.augmentation, self.for_kernels, self.bad_files = split, augmentation, for_kernels, bad_files
        self.on_cpu: set[int] = set()
        self.slots: Slots | None = None

    def __len__(self) -> int:
        return len(self.split)

    def __getstate__(self) -> dict[str, Any]:
        """Without memory that only forked processes share."""
        return {**self.__dict__, "slots": None}

    def __getitem__(self, wanted: Wanted) -> Batch | Packed:
        return self.packed(wanted) if self.for_kernels else self.finished(wanted.drawn)

    def finished(self, drawn: Sequence[Drawn]) -> Batch:
        """The batch, made on the CPU."""
        images, labels, bad = self._each(drawn, self._image)
        return Batch(torch.stack(images), labels, bad)

    def packed(self, wanted: Wanted) -> Packed:
        """The batch for a GPU."""
        content = Content(None if self.slots is None else self.slots.take())
        try:
            items, labels, bad = self._each(wanted.drawn, partial(self._item, content, wanted.nvjpeg))
        except BaseException:
            content.release()
            raise
        stored = [item.stored for item in items]
        return Packed(
            wanted.drawn,
            [item.index for item in items],
            content,
            [item.begin for item in items],
            [item.length for item in items],
            stored,
            stack([item.draw for item in items], stored),
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

    def _item(self, content: Content, nvjpeg: bool, index: int, seed: int | None) -> _Item:
        """A file as it is, where the GPU decodes it; else what it shows of its picture."""
        path, pixels = self.split.path(index), None
        if path is not None and index not in self.on_cpu:
            data = np.fromfile(path, np.uint8)
            head = read_head(data.tobytes())
            if head is not None and nvjpeg:
                stored = Stored((head.rows, head.columns), head.orientation)
                draw = self._draw(upright(stored.size, head.orientation), seed)
                return _Item(index, content.put(data), len(data), stored, draw)
            if head is not None:
                pixels = _decoded(data, head)
        if pixels is None:
            pixels = self._pixels(index).permute(1, 2, 0).numpy()
        draw = self._draw((pixels.shape[0], pixels.shape[1]), seed)
        pixels, view = self._shown(pixels, draw.view)
        stored = Stored((pixels.shape[0], pixels.shape[1]), interleaved=True)
        return _Item(index, content.put(pixels), 0, stored, replace(draw, view=view))

    def _shown(self, pixels: np.ndarray, view: View) -> tuple[np.ndarray, View]:
        """The box of pixels `y x c` that a view shows, or what a very large one is resized to, and the view of that."""
        top, left, rows, columns = view.box
        if rows * columns > self.most_pixels:
            planar = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)
            size = self.augmentation.size
            shown = show(planar, view, self.augmentation.resampling).permute(1, 2, 0).numpy()
            return shown, View((0, 0, *size), size, size)
        return pixels[top : top + rows, left : left + columns], replace(view, box=(0, 0, rows, columns))

    @property
    def most_pixels(self) -> int:
        """Pixels of a decoded picture that are handed over at most."""
        return LARGE * self.augmentation.size[0] * self.augmentation.size[1]

    def _pixels(self, index: int) -> Tensor:
        """The whole picture, by Pillow."""
        path = self.split.path(index)
        picture = read_image(path) if path is not None else self.split.source[self.split.indices[index]][0]
        return to_pixels(picture, len(self.augmentation.mean))

    def _name(self, index: int) -> str:
        return self.split.path(index) or f"image {self.split.indices[index]}"

    def _draw(self, picture: Size, seed: int | None) -> Draw:
        return self.augmentation.draw(picture, () if seed is None else uniforms(seed))


def _decoded(data: np.ndarray, head: Head) -> np.ndarray | None:
    """Upright pixels `y x c` of a JPEG file; None where the decoder refuses it, and `read_image` has the words."""
    try:
        pixels = io.decode_jpeg(torch.from_numpy(data), io.ImageReadMode.RGB)
    except RuntimeError:
        return None
    return turn_upright(pixels.permute(1, 2, 0).numpy(), head.orientation)
