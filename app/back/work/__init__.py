"""Jobs by name: each tells how far it has come, keeps its result, hands it over, and then draws its files.

`place` is where the result is kept. `tell(share, words, content)` reports; content is what there is so far, and the
whole at share 1.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from aft_lens.data import UNCOUNTED
from aft_lens.errors import InputError
from aft_lens.progress import heard
from analyses.provenance import commanded
from analyses.result import Result, plain
from app.back import opened, shelf
from app.back.lines import NONE, Lines

Tell = Callable[..., None]


def shown(result: Result) -> dict[str, Any]:
    """A result as pages take it: its table, its interactive figure and its record."""
    table = result.table()
    return {
        "name": result.name,
        "table": {"columns": list(table.columns), "rows": [list(row) for row in table.rows], "title": table.title,
                  "note": table.note},
        "figure": result.interactive().to_json(),
        "record": plain(result.record()),
    }  # fmt: skip


def finish(tell: Tell, place: str, result: Result | None, content: Mapping[str, Any], made: Lines = NONE) -> None:
    """Keep and hand over what was found, then draw its files, with the command and the Python that make them."""
    line, python = made
    whole = {**content, "command": list(line), "python": python}
    shelf.put(Path(place), whole)
    tell(1.0, "", whole)
    if result is not None:
        with commanded(*line), suppress(Exception):  # what is drawn is a copy: the page has the result
            result.save(Path(place) / shelf.FILES)


def telling(tell: Tell, low: float = 0.0, high: float = 1.0) -> Any:
    """Inside the block, progress of the analyses is told, as a share between `low` and `high`."""

    def listen(words: str, done: int, total: int | None) -> None:
        tell(low + (high - low) * (done / total if total else 0.0) * 0.99, f"{words} {done} of {total or '?'}", None)

    return heard(listen)


def counted(source: str, revision: str) -> Any:
    """A checkpoint's data, if its test images have classes; InputError says how to get them."""
    held = opened.data_of(source, revision)
    if held.test is held.train:  # samples alone: too few, and of no split
        raise InputError(
            f"{held.name} is not here, and accuracy needs its classes: `aft-lens evaluate {source}` fetches it"
        )
    return held


def check_labels(batches: Any, name: str) -> None:
    """InputError where images have no class to be right about."""
    if any(bool((labels == UNCOUNTED).any()) for _, labels in batches):
        raise InputError(f"{name} has images without classes here, and accuracy needs them; choose another data set")
