"""What is said on stderr while work goes on: a bar for what takes long, a line on what was left out."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from typing import Any, TypeVar

from tqdm import tqdm

from aft_lens.errors import printable

T = TypeVar("T")
PATIENCE = 3.0
"""Seconds after which a bar appears."""
Listener = Callable[[str, int, int | None], None]
"""Told what is gone through, how many items are done, and of how many, where that is known."""
_LISTENER: ContextVar[Listener | None] = ContextVar("listener", default=None)


def progress(items: Iterable[T], words: str, *, shown: bool = True, patience: float | None = None) -> Iterable[T]:
    """The items, with a bar on stderr, where that is a terminal, if going through them takes longer than `patience`
    seconds (`PATIENCE`, if left out).

    Inside `heard` the listener is told of every item, too.
    """
    delay = PATIENCE if patience is None else patience
    bar = tqdm(items, words, delay=delay, leave=False, file=sys.stderr, disable=None if shown else True)
    listener = _LISTENER.get()
    return bar if listener is None else _told(bar, words, listener)


@contextmanager
def heard(listener: Listener) -> Iterator[None]:
    """Inside the block, whoever asked for the work hears how far it has come."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def _told(bar: "tqdm[T]", words: str, listener: Listener) -> Iterator[T]:
    """The items, each of which is told after it is done."""
    listener(words, 0, bar.total)
    for number, item in enumerate(bar, 1):
        yield item
        listener(words, number, bar.total)


def ticks(words: str) -> Callable[[int], object]:
    """What to call after each of many steps: a bar on stderr, where that is a terminal, if they take long."""
    bar = tqdm(desc=words, delay=PATIENCE, leave=False, file=sys.stderr, disable=None)
    return lambda count: bar.update()


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
