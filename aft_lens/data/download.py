"""Data sets that torchvision finds or fetches."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from urllib.error import URLError

_ALLOWED: ContextVar[bool] = ContextVar("allowed", default=True)


@contextmanager
def offline() -> Iterator[None]:
    """Inside the block nothing is fetched: a data set is here or missing."""
    token = _ALLOWED.set(False)
    try:
        yield
    finally:
        _ALLOWED.reset(token)


def download(kind: Callable[..., Any], root: Path, hint: str, **options: Any) -> Any:
    """Let torchvision find or fetch a data set; FileNotFoundError with the next step if it cannot."""
    try:
        return kind(root, download=_ALLOWED.get(), **options)
    except (URLError, RuntimeError, OSError) as error:
        why = " and its download failed" if _ALLOWED.get() else ", and nothing is fetched from here"
        raise FileNotFoundError(f"data set {kind.__name__} is not in {root}{why} ({error}); {hint}") from error
