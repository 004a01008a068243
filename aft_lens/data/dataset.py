"""The door for data sets: what one is, and where they are found by name."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from aft_lens.data.source import DataSource
from aft_lens.registry import Registry


class Load(Protocol):
    """How a data set is loaded; see `load_data` for the arguments."""

    def __call__(self, name: str, *, root: Path, img_size: int | None, augment: str) -> DataSource:
        """The data set of that whole name; FileNotFoundError, with the next step, where it is not to be had."""


@dataclass(frozen=True)
class DataSet:
    """A data set that `load_data` finds by the word before the colon of a name."""

    load: Load
    argument: str = ""
    """What may stand behind the word and a colon, as it is shown to users: PATH, COUNT. Empty: nothing may."""
    crop: bool = False
    """Image files come by ImageNet's centre crop; False: whole pictures are squeezed to the model's square."""
    labelled: bool = True
    """False: images without classes, which can be looked at but not learned or judged by."""


class DataSets(Registry[DataSet]):
    """Data sets by their word; iterating gives the names as users write them, e.g. folder:PATH."""

    def __iter__(self) -> Iterator[str]:
        for word in self.names():
            argument = self._own[word].argument if word in self._own else ""
            yield f"{word}:{argument}" if argument else word


DATASETS = DataSets("data name", "aft_lens.datasets")
"""What ships registers itself in `aft_lens.data.sets`; other packages add by entry points."""
