"""Rows of runs that another machine finished: its folder of them, a tar of that, or a published record."""

import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from aft_lens.errors import InputError
from aft_lens.text_files import read_json


def contents(source: Path) -> Iterator[Mapping[str, Any]]:
    """What the JSON files of a folder or a tar hold, or one JSON file; InputError on a tar that cannot be read."""
    if source.is_dir():
        yield from map(read_json, sorted(source.rglob("*.json")))
    elif source.suffix == ".json":
        yield read_json(source)
    else:
        try:
            with tarfile.open(source) as archive, tempfile.TemporaryDirectory() as folder:
                for member in archive:
                    if member.isfile() and member.name.endswith(".json"):
                        archive.extract(member, folder, filter="data")
                yield from map(read_json, sorted(Path(folder).rglob("*.json")))
        except (tarfile.TarError, EOFError, zlib.error) as error:
            raise InputError(f"{source} is no tar that can be read ({error}); give a folder or a whole tar") from error


def rows(content: Mapping[str, Any], *fields: str) -> list[Mapping[str, Any]]:
    """The rows with such fields of a published record, or the one that a store's file is."""
    kept = content.get("runs", [content.get("content")])
    return [row for row in kept if isinstance(row, dict) and set(fields) <= set(row)]


def check_any(found: list[Mapping[str, Any]], source: Path) -> None:
    """InputError, with the next step, where nothing of that kind was there."""
    if not found:
        raise InputError(f"{source} has no rows of runs; give the folder of a study's runs, a tar of it, or its JSON")
