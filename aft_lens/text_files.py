"""The one reader of YAML, JSON and CSV files: sizes and depth are known before anything is made of them."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import yaml

from aft_lens.errors import InputError

MOST_BYTES = 2**19
"""Of a YAML file: a run's own with ImageNet's classes has 30 kB."""
MOST_DEPTH = 12
"""Mappings and lists within each other; a run's own has 3."""
MOST_TABLE = 2**24
"""Bytes of a table, a million epochs."""
MOST_JSON = 2**28
"""Bytes of a JSON file: results hold whole maps."""
Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Path | str) -> dict[str, Any]:
    """The mapping in a YAML file of plain values: no tags, no anchors and aliases (which can name themselves).

    Raises InputError, with the file's name and the next step, on anything else, and OSError where it cannot be opened.
    """
    text = _text(Path(path), MOST_BYTES)
    try:
        depth = 0
        for event in yaml.parse(text, Loader=Loader):
            line = event.start_mark.line + 1 if event.start_mark else 1
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise InputError(f"{path} has an anchor or alias in line {line}; write it out")
            if getattr(event, "tag", None):
                raise InputError(f"{path} has a tag in line {line}; only plain values are read")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MOST_DEPTH:
                raise InputError(f"{path} nests more than {MOST_DEPTH} levels; a file of ours has 3")
        found = yaml.load(text, Loader=Loader)
    except InputError:
        raise
    except (yaml.YAMLError, ValueError, OverflowError, TypeError, LookupError, AttributeError) as error:
        # What YAML's and Python's own readers of dates, numbers and keys raise.
        said = " ".join(str(error).split())[:200]
        raise InputError(f"{path} is no YAML that can be read ({said}); restore the file") from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise InputError(f"{path} must hold fields with values, it holds {type(found).__name__}; restore the file")
    return found


def read_table(path: Path | str) -> tuple[list[str], list[dict[str, str]]]:
    """Columns of a CSV file, and its rows by column; cells that are not there are left out. Raises as `read_yaml`."""
    try:
        reader = csv.DictReader(io.StringIO(_text(Path(path), MOST_TABLE), newline=""))
        rows = [{key: cell for key, cell in row.items() if key and isinstance(cell, str)} for row in reader]
    except csv.Error as error:
        raise InputError(f"{path} is no table that can be read ({error}); restore the file") from error
    return list(reader.fieldnames or ()), rows


def read_json(path: Path | str) -> dict[str, Any]:
    """The object in a JSON file. Raises as `read_yaml`."""
    try:
        found = json.loads(_text(Path(path), MOST_JSON))
    except InputError:
        raise
    except (ValueError, RecursionError) as error:  # RecursionError: nested as no file of anybody's work is
        raise InputError(f"{path} is no JSON that can be read ({str(error)[:200]}); restore the file") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} must hold an object, it holds {type(found).__name__}; restore the file")
    return found


def _text(path: Path, most: int) -> str:
    """A file's text, if it is no longer than `most` bytes."""
    with path.open("rb") as file:  # not by its size alone: a device has none
        content = file.read(most + 1)
    if len(content) > most:
        raise InputError(f"{path} is longer than {most:,} bytes; restore the file")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}); restore the file") from error
