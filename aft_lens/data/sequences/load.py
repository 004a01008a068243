"""Sequences by name: text, or the images of a data set as their sub-pixels."""

from pathlib import Path

from torch import Tensor

from aft_lens.data.load import DEFAULT_ROOT, load_data
from aft_lens.data.sequences.corpora import CORPORA
from aft_lens.data.sequences.source import Pixels, SequenceSource
from aft_lens.data.source import DataSource, Images

LEVELS = 256
"""Symbols of a sub-pixel."""


def load_sequences(name: str, *, root: Path | str | None = None, length: int = 1024) -> SequenceSource:
    """Load sequences by name: one of `CORPORA` (enwik8:PATH, text:PATH), or images in memory (cifar10, digits, …).

    An image of H x W x C is a sequence of that many sub-pixels, row by row, channels innermost, each of 256 levels.
    Text comes as bytes, in windows of `length`. `root` is where downloads live (default: `data/`). Raises ValueError on
    an unknown name and FileNotFoundError, with the next step, on missing data.
    """
    word, colon, _ = name.partition(":")
    if word not in CORPORA:
        return _pixels(load_data(name, root=root))
    found = CORPORA[word]
    if colon and not found.argument:
        raise ValueError(f"data name {name!r} must be {word} alone")
    return found.read(name, root=Path(root) if root is not None else DEFAULT_ROOT, length=length)


def _pixels(data: DataSource) -> SequenceSource:
    """The images of a data set as sequences. Raises ValueError where they are read from files."""
    splits: list[Pixels] = []
    grid: tuple[int, ...] = ()
    for part in (data.train, data.val, data.test):
        if not isinstance(part, Images):
            raise ValueError(
                f"data {data.name!r} is read from files; sequences need a data set in memory, e.g. cifar10"
            )
        _, channels, rows, columns = part.images.shape
        grid = (rows, columns, channels)
        splits.append(Pixels(spelled(part.images), LEVELS))
    train, val, test = splits
    return SequenceSource(data.name, LEVELS, train.symbols.shape[1], grid, "dim", train, val, test, data.split)


def spelled(images: Tensor) -> Tensor:
    """Images `n c y x` as sequences `n t` in raster order, channels innermost."""
    return images.permute(0, 2, 3, 1).flatten(1).contiguous()
