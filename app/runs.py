"""Runs on disk, in progress or finished: where their numbers are and how far they have come."""

import csv
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from aft_lens.checkpoint import CONFIG, METRICS

STALE_SECONDS = 600.0
"""A run whose numbers have not changed for this long is taken to have stopped."""


@dataclass(frozen=True)
class Run:
    """A folder with metrics, and a checkpoint once it has ended."""

    label: str
    path: Path
    in_progress: bool
    epochs: int | None
    """Epochs it will have; None if its recipe does not say."""
    single: bool = False
    """Whether its heads use the offset of their largest w alone."""
    written: float = 0.0
    """When its numbers were written last, in seconds since 1970."""


def find_runs(roots: Sequence[Path]) -> dict[str, Run]:
    """Every folder with metrics below the roots by label, those in progress first, then the latest."""
    files = {file.resolve(): file for root in roots for file in root.rglob(METRICS) if not _hidden(file, root)}
    runs: dict[str, Run] = {}
    for file in sorted(files.values(), key=lambda file: file.stat().st_mtime, reverse=True):
        label = file.parent.name if file.parent.name not in runs else "/".join(file.parts[-3:-1])
        runs[label] = describe(label, file.parent)
    return dict(sorted(runs.items(), key=lambda item: not item[1].in_progress))


def describe(label: str, path: Path) -> Run:
    """The state of a run as its files are now: in progress while epochs are missing and something was written lately.

    A run's folder is a whole checkpoint after every epoch; its logs between epochs are in `NAME.state` beside it.
    """
    files = [path / METRICS, *path.with_name(f"{path.name}.state").rglob("*")]
    latest = max((file.stat().st_mtime for file in files if file.is_file()), default=0.0)
    rows, record = read_rows(path), _record(path)
    epochs, model = _find_epochs(record), record.get("model")
    single = isinstance(model, dict) and model.get("position_bias") == "single"
    missing = epochs is not None and (not rows or rows[-1]["epoch"] + 1 < epochs)
    return Run(label, path, missing and time.time() - latest < STALE_SECONDS, epochs, single, latest)


def read_rows(path: Path) -> list[dict[str, float]]:
    """One row an epoch from metrics.csv: rows of one epoch are joined, blank and unfinished cells left out.

    What was measured after the last epoch (a row without one, as pruning adds) belongs to it.
    """
    epochs: dict[int, dict[str, float]] = {}
    reader = csv.DictReader(io.StringIO(_read(path / METRICS), newline=""))
    numbered = "epoch" in (reader.fieldnames or ())
    for number, row in enumerate(reader):
        values = {key: value for key, cell in row.items() if key and (value := _number(cell)) is not None}
        epoch = int(values.get("epoch", max(epochs, default=0) if numbered else number))
        epochs.setdefault(epoch, {"epoch": float(epoch)}).update(values)
    return [epochs[epoch] for epoch in sorted(epochs)]


def headline(rows: Sequence[dict[str, float]], epochs: int | None) -> list[tuple[str, str]]:
    """Up to four (name, text) pairs for the top of the page: the epoch and the last accuracy, loss and entropy."""
    last: dict[str, float] = {}
    for row in rows:
        last.update(row)
    done = int(last.get("epoch", 0)) + 1
    found = [("Epochs", f"{done} of {epochs}" if epochs else str(done))]
    for word, scale, form in (
        ("accuracy", 100.0, "{:.1f} %"),
        ("loss", 1.0, "{:.3f}"),
        ("entropy", 1.0, "{:.2f} nats"),
    ):
        names = [name for name in last if word in name.lower()]
        held_out = [name for name in names if any(part in name.lower() for part in ("test", "val"))]
        means = [name for name in names if name.endswith("/mean")]
        for name in (held_out or means or names)[-1:]:
            title = name.replace("_", " ").replace("/", " ").capitalize()
            found.append((title, form.format(scale * last[name])))
    return found[:4]


def _read(file: Path) -> str:
    """A file's text, read again for a moment where its folder is just being replaced by the next epoch's."""
    for _ in range(20):
        if file.is_file():
            break
        time.sleep(0.05)
    return file.read_text()


def _hidden(file: Path, root: Path) -> bool:
    """Whether a file lies in a folder that is being written or replaced."""
    return any(part.startswith(".") for part in file.relative_to(root).parts)


def _number(cell: Any) -> float | None:
    """A cell's number; None for a blank one or a line that is still being written."""
    try:
        return float(cell)
    except (TypeError, ValueError):
        return None


def _record(path: Path) -> dict[str, Any]:
    """What config.yaml holds; empty if it cannot be read."""
    try:
        record = yaml.safe_load((path / CONFIG).read_text())
    except (OSError, yaml.YAMLError):
        return {}
    return record if isinstance(record, dict) else {}


def _find_epochs(record: Any) -> int | None:
    """The first `epochs` or `max_epochs` in nested mappings."""
    if not isinstance(record, dict):
        return None
    for name in ("epochs", "max_epochs"):
        if isinstance(record.get(name), int):
            return int(record[name])
    return next((found for part in record.values() if (found := _find_epochs(part))), None)
