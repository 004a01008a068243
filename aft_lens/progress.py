"""A bar for what takes long."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")
PATIENCE = 3.0
"""Seconds after which a bar appears."""


def progress(items: Iterable[T], words: str, *, shown: bool = True) -> Iterable[T]:
    """The items, with a bar on stderr if going through them takes longer than `PATIENCE`."""
    return tqdm(items, words, delay=PATIENCE, leave=False, file=sys.stderr, disable=not shown)


class Passes(Sequence[T]):
    """Items that are gone through again and again, each time with a bar of its own if it takes long."""

    def __init__(self, items: Sequence[T], words: str) -> None:
        self.items, self.words = items, words

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, place: Any) -> Any:
        return self.items[place]

    def __iter__(self) -> Iterator[T]:
        return iter(progress(self.items, self.words))
