"""Rows that another machine trained, taken into a study's folder: a lent GPU's runs are not made again."""

import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from aft_lens.errors import InputError
from aft_lens.text_files import read_json
from analyses.autoregression.plan import Task, identity
from analyses.autoregression.speed import keep_speeds, read_speeds
from analyses.store import Store, fingerprint


def take(source: Path, todo: Sequence[Task]) -> tuple[int, int]:
    """Put each task's row that `source` has and its own folder has not into that folder; return how many, of how many.

    `source` is a folder of rows, a tar of one, or autoregression.json, whose runs are rows too and whose speeds are
    taken along. A row counts for a task if it agrees with it on all that a run depends on. Raises InputError where
    there is nothing of that kind.
    """
    wanted = {fingerprint(task.identity()): task for task in todo}
    contents = list(_contents(source))
    rows = [row for content in contents for row in _rows(content)]
    taken = 0
    for row in rows:
        mark = fingerprint(identity(row["task"], row["setting"], row["recipe"]))
        task = wanted.get(mark)
        if task is not None and Store(task.runs).get(task.name, mark) is None:
            Store(task.runs).put(task.name, mark, row)
            taken += 1
    if not rows:
        raise InputError(f"{source} has no rows of runs; give the folder of a study's runs, a tar of it, or its JSON")
    speeds = [content["speeds"] for content in contents if content.get("speeds")]
    if speeds and todo and not read_speeds(todo[0].runs):
        keep_speeds(todo[0].runs, speeds[0])
    return taken, len(rows)


def _rows(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rows of a published record, or the one that a store's file is."""
    kept = content.get("runs", [content.get("content")])
    return [row for row in kept if isinstance(row, dict) and {"task", "setting", "recipe"} <= set(row)]


def _contents(source: Path) -> Iterator[Mapping[str, Any]]:
    """What the JSON files of a folder or a tar hold, or one JSON file."""
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
