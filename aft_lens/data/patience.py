"""Streams that a decoder may read for so long: a small file can ask for hours of work."""

import io
import time
from typing import Any


class OutOfPatience(Exception):
    """A decoder was still reading when its time was over; `seconds` is how much it had."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"more than {seconds:g} s of a processor")
        self.seconds = seconds


class _Patient:
    """Looks at the clock whenever it is read or moved.

    The clock is this thread's share of a processor, so that a busy machine or a slow disk refuses nothing.
    """

    def __init__(self, source: Any, seconds: float) -> None:
        super().__init__(source)  # type: ignore[call-arg]
        self.seconds = seconds
        self._end = time.thread_time() + seconds

    def _look(self) -> None:
        if time.thread_time() > self._end:
            raise OutOfPatience(self.seconds)

    def read(self, size: int | None = -1, /) -> bytes:
        self._look()
        return super().read(size)  # type: ignore[misc]

    def readline(self, size: int | None = -1, /) -> bytes:
        self._look()
        return super().readline(size)  # type: ignore[misc]

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._look()
        return super().seek(offset, whence)  # type: ignore[misc]


class PatientBytes(_Patient, io.BytesIO):
    """Bytes, read for at most `seconds` of a processor; raises OutOfPatience."""


class PatientFile(_Patient, io.BufferedReader):
    """An open file, read for at most `seconds` of a processor; raises OutOfPatience."""
