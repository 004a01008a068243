"""Files and folders that are whole or not there: written under another name, brought to the disk, then renamed."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

from aft_lens.errors import InputError

T = TypeVar("T")
CONFIG, METRICS = "config.yaml", "metrics.csv"
"""Of a checkpoint's folder: what it is, and its numbers by epoch."""
TRIES = 50
"""How often a folder is read again that was replaced while it was read."""


def write_whole(path: Path | str, content: str | bytes) -> Path:
    """Write a file so that a killed process leaves the old one or the new one, never a part; makes its folder.

    Text is written as UTF-8. Returns the path.
    """
    with whole_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)
    return Path(path)


@contextmanager
def whole_file(path: Path | str) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` at the end of the block, or leaves it as it was on an error.

    Links are followed. What is there and no file, such as a device or a pipe, is written to and never replaced.
    """
    path = Path(path).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            yield file
        return
    fresh = path.with_name(f".{path.name}.{os.getpid()}.writing")
    try:
        with fresh.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        with suppress(OSError):
            fresh.unlink()
        raise
    _to_disk(path.parent)


@contextmanager
def whole_folder(path: Path | str) -> Iterator[Path]:
    """A new empty folder that takes the place of `path` at the end of the block, or leaves it as it was on an error.

    Between its two renames a killed process leaves the old folder beside it: `recovered` finds it. Raises InputError
    where something else than a folder is in its place.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is not a folder; choose another name")
    fresh, old = path.with_name(f".{path.name}.writing"), _old(path)
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        yield fresh
        for part in (*fresh.rglob("*"), fresh):
            _to_disk(part)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
    fresh.rename(path)
    _to_disk(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def recovered(path: Path | str) -> Path:
    """The folder, or the old one that a process killed between `whole_folder`'s two renames left beside it."""
    path = Path(path)
    old = _old(path)
    return old if not path.exists() and old.is_dir() else path


def recovered_of(folder: Path) -> Path:
    """The path that a folder is `recovered` for, which is its own but for one that was left beside its place."""
    name = folder.name
    if name.startswith(".") and name.endswith(".old") and recovered(place := folder.with_name(name[1:-4])) == folder:
        return place
    return folder


def steady(path: Path | str, read: Callable[[Path], T]) -> T:
    """What `read` makes of a folder, read again where it was replaced meanwhile: all of it is of one version."""
    for _ in range(TRIES):
        folder = recovered(path)
        before = _identity(folder)
        try:
            found = read(folder)
        except Exception:  # of a folder that is gone by now; of one that is still there, the error is true
            if _identity(folder) == before and recovered(path) == folder:
                raise
        else:
            if _identity(folder) == before:
                return found
    raise InputError(f"{path} was replaced {TRIES} times while it was read; read it when its training has ended")


@contextmanager
def locked(path: Path | str, words: str) -> Iterator[None]:
    """Inside the block no other process of this machine has the lock of `path`; it ends with the process that has it.

    Raises InputError, with `words` for what may be done, where another one has it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.with_name(f".{path.name}.lock")
    with file.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = _identity(file) == _identity(handle.fileno())
        except BlockingIOError:
            ours = False
        if not ours:
            raise InputError(f"{path} is being written by another process; {words}")
        try:
            yield
        finally:
            file.unlink(missing_ok=True)


def _identity(path: Path | int) -> tuple[int, int, int] | None:
    """What tells a file or folder from another one that took its place; None where there is none.

    Its number alone does not: that of a removed folder is given to the next one.
    """
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns


def _old(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _to_disk(path: Path) -> None:
    """Bring a file, or a folder's entries, to the disk, as far as its file system can."""
    number = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # file systems without it
            os.fsync(number)
    finally:
        os.close(number)
