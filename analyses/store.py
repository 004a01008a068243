"""Going on after a kill: what a long job has finished is kept under a fingerprint of everything that it depends on."""

import hashlib
import json
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aft_lens.files import write_whole


def fingerprint(*parts: Any) -> str:
    """A short hash of records, dataclasses and plain values: equal content, equal hash."""
    content = json.dumps([_plain(part) for part in parts], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Store:
    """Finished work in a folder, a JSON file a piece; a killed job leaves none half written."""

    folder: Path

    def path(self, name: str) -> Path:
        """Where a piece is kept."""
        return self.folder / f"{name}.json"

    def get(self, name: str, mark: str) -> Any | None:
        """A finished piece, or None if there is none, or one of another fingerprint."""
        if not self.path(name).is_file():
            return None
        kept = json.loads(self.path(name).read_text(encoding="utf-8"))
        return kept["content"] if kept.get("fingerprint") == mark else None

    def put(self, name: str, mark: str, content: Any) -> Path:
        """Keep a finished piece in place of what the name had, and return its path."""
        return write_whole(
            self.path(name), json.dumps({"fingerprint": mark, "content": _plain(content)}, default=_listed) + "\n"
        )


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _listed(value: Any) -> Any:
    """An array as lists, its numbers to the last bit."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no plain value")
