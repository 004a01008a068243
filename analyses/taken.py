"""Rows of runs that another machine finished: its folder of them, a tar of that, or a published record."""

import tarfile
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aft_lens.errors import InputError
from aft_lens.text_files import read_json


def contents(source: Path) -> list[Mapping[str, Any]]:
    """What the JSON files of a folder or a tar hold, or one JSON file; InputError on a tar that cannot be read."""
    if source.is_dir():
        return [read_json(path) for path in sorted(source.rglob("*.json"))]
    if source.suffix == ".json":
        return [read_json(source)]
    try:
        with tarfile.open(source) as archive, tempfile.TemporaryDirectory() as folder:
            for member in archive:
                if member.isfile() and member.name.endswith(".json"):
                    archive.extract(member, folder, filter="data")
            return contents(Path(folder))
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise InputError(f"{source} is no tar that can be read ({error}); give a folder or a whole tar") from error


def rows(read: Sequence[Mapping[str, Any]], source: Path, *fields: str) -> Sequence[Mapping[str, Any]]:
    """The rows with such fields: those of a published record, or the one that a store's file is.

    Raises InputError, with the next step, where what was read of `source` has none.
    """
    kept = [row for content in read for row in content.get("runs", [content.get("content")])]
    found = [row for row in kept if isinstance(row, dict) and set(fields) <= set(row)]
    if not found:
        raise InputError(f"{source} has no rows of runs; give the folder of a study's runs, a tar of it, or its JSON")
    return found
