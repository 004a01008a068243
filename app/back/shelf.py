"""Results on disk under the fingerprint of what they depend on: found again after a restart, bounded by bytes."""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from aft_lens.files import whole_folder
from app.places import JOBS_VARIABLE

MOST_BYTES = 2**30
"""Of all results; the oldest go first."""
CONTENT, ARRAYS, FILES = "result.json", "arrays.npz", "files"


@cache
def folder() -> Path:
    """Where results are kept: as given, else the user's cache, else a folder of this process's own."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    given = os.environ.get(JOBS_VARIABLE)
    for place in ([Path(given)] if given else []) + [home / "aft-lens" / "jobs"]:
        with suppress(OSError):
            place.mkdir(parents=True, exist_ok=True)
            if os.access(place, os.W_OK):
                return place
    return Path(tempfile.mkdtemp(prefix="aft-lens-jobs-"))


def path_of(kind: str, mark: str) -> Path:
    """Where the result of a kind of job is kept under its fingerprint."""
    return folder() / f"{kind}-{mark}"


def put(place: Path, content: Mapping[str, Any]) -> None:
    """Keep a result, JSON with arrays inside, in a folder that is whole or not there."""
    arrays: dict[str, np.ndarray] = {}
    with whole_folder(place) as fresh:
        text = json.dumps(_parted(content, arrays))
        (fresh / CONTENT).write_text(text, encoding="utf-8")
        np.savez_compressed(fresh / ARRAYS, **arrays)  # type: ignore[arg-type]
    _bound(place)


def get(place: Path) -> dict[str, Any] | None:
    """A result that is kept; None if there is none, or it is damaged."""
    try:
        with np.load(place / ARRAYS, allow_pickle=False) as arrays:
            found = _joined(json.loads((place / CONTENT).read_text(encoding="utf-8")), arrays)
    except (OSError, ValueError, KeyError):
        return None
    with suppress(OSError):
        os.utime(place)
    return found if isinstance(found, dict) else None


def files(place: Path) -> list[Path]:
    """Files that were drawn of a result (PNG, SVG, HTML, JSON, CSV); empty while they are not drawn yet."""
    return sorted((place / FILES).glob("*.*"))


def _parted(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """A value as JSON, its arrays taken out and named."""
    if isinstance(value, np.ndarray):
        name = f"a{len(arrays)}"
        arrays[name] = value
        return {"array": name}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): _parted(each, arrays) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_parted(each, arrays) for each in value]
    return value


def _joined(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """A value with its arrays put back."""
    if isinstance(value, dict):
        if list(value) == ["array"]:
            return arrays[value["array"]]
        return {key: _joined(each, arrays) for key, each in value.items()}
    return [_joined(each, arrays) for each in value] if isinstance(value, list) else value


def _bound(newest: Path) -> None:
    """Remove the oldest results until the rest is small enough."""
    kept = [(place.stat().st_mtime, place) for place in folder().iterdir() if place.is_dir()]
    total = 0
    for _, place in sorted(kept, reverse=True):
        total += sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
        if total > MOST_BYTES and place != newest:
            shutil.rmtree(place, ignore_errors=True)
