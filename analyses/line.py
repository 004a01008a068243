"""The command line behind what is made. Light: every command imports it."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_LINE: ContextVar[str] = ContextVar("line", default="")


@contextmanager
def commanded(*words: object) -> Iterator[None]:
    """Inside the block, what is made is made by the command line of these words (quoted as a shell needs it)."""
    token = _LINE.set(shlex.join(map(str, words)))
    try:
        yield
    finally:
        _LINE.reset(token)


def command_line() -> str:
    """The command line that runs now; empty where a result is made from Python."""
    return _LINE.get()
