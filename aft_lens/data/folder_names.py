"""Names in a user's folders: which are classes, which images, and which tools leave behind."""

from pathlib import Path

from aft_lens.data.image import EXTENSIONS


def class_names(path: Path) -> list[str]:
    """Names of the folders in a folder, in order, without hidden ones."""
    return sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not is_hidden(entry.name))


def is_hidden(name: str) -> bool:
    """True for what notebooks, file managers and archives put beside a user's files."""
    return name.startswith(".") or name == "__MACOSX"


def why_left_out(file: Path) -> str:
    """Why a file in a folder of images, by its path in that, is not read as one; empty for one that is."""
    if any(map(is_hidden, file.parts)):
        return "hidden"
    return "" if file.suffix.lower() in EXTENSIONS else file.suffix.lower() or "without a suffix"
