"""What is said on stderr while work goes on: a bar for what takes long, a line on what was left out."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, TypeVar

from tqdm import tqdm

from aft_lens.errors import printable

T = TypeVar("T")
PATIENCE = 3.0
"""Seconds after which a bar appears."""


def progress(items: Iterable[T], words: str, *, shown: bool = True) -> Iterable[T]:
    """The items, with a bar on stderr, where that is a terminal, if going through them takes longer than `PATIENCE`."""
    return tqdm(items, words, delay=PATIENCE, leave=False, file=sys.stderr, disable=None if shown else True)


@cache
def note(words: str) -> None:
    """Say something on stderr, once a process."""
    with suppress(OSError):  # nobody may listen
        print(printable(words), file=sys.stderr)


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
