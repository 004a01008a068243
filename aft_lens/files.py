"""Files and folders that are whole or not there: written under another name, then renamed."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_whole(path: Path | str, content: str | bytes) -> Path:
    """Write a file so that a killed process leaves the old one or the new one, never a part; makes its folder.

    Text is written as UTF-8. Returns the path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.writing")
    if isinstance(content, str):
        fresh.write_text(content, encoding="utf-8")
    else:
        fresh.write_bytes(content)
    fresh.replace(path)
    return path


@contextmanager
def whole_folder(path: Path | str) -> Iterator[Path]:
    """A new empty folder that takes the place of `path` at the end of the block, or leaves it as it was on an error.

    Between its two renames a killed process leaves the old folder beside it: `recovered` finds it.
    """
    path = Path(path)
    fresh, old = path.with_name(f".{path.name}.writing"), _old(path)
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    yield fresh
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        path.rename(old)
    fresh.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def recovered(path: Path | str) -> Path:
    """The folder, or the old one that a process killed between `whole_folder`'s two renames left beside it."""
    path = Path(path)
    old = _old(path)
    return old if not path.exists() and old.is_dir() else path


def _old(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")
