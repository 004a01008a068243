"""Things that are kept by key, bounded by their bytes; the one least recently asked for goes first."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np


class Held:
    """Things by key with their sizes. Threads may share it."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Any], size: Callable[[Any], int] | None = None) -> Any:
        """The thing of a key, made where it is not there; one larger than the bound is kept alone."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key][0]
        made = make()
        count = (size or size_of)(made)
        with self._lock:
            self._kept.pop(key, None)
            while self._kept and count + sum(kept for _, kept in self._kept.values()) > self.most:
                self._kept.popitem(last=False)
            self._kept[key] = made, count
        return made

    def forget(self, key: Hashable) -> None:
        """Keep a thing no longer."""
        with self._lock:
            self._kept.pop(key, None)

    def clear(self) -> None:
        """Keep nothing."""
        with self._lock:
            self._kept.clear()


def size_of(value: Any) -> int:
    """Bytes of arrays and text inside a value, roughly."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(size_of, value.values())) + 64 * len(value)
    if isinstance(value, list | tuple):
        return sum(map(size_of, value)) + 16 * len(value)
    if is_dataclass(value) and not isinstance(value, type):
        return sum(size_of(getattr(value, each.name)) for each in fields(value))
    return 32
