"""Runs on disk, in progress or finished: where their numbers are and how far they have come."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aft_lens.errors import InputError, answer, markless
from aft_lens.files import CONFIG, METRICS, recovered_of, steady
from aft_lens.text_files import read_table, read_yaml

STALE_SECONDS = 600.0
"""A run whose numbers have not changed for this long is taken to have stopped."""
MOST_EPOCHS = 10_000_000
"""Numbers of epochs beyond it are no epochs."""


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
    problem: str = ""
    """Why it cannot be read; empty for one that can."""
    held_out: bool = True
    """Whether its validation images are held out; False where its recipe trains on them as well."""


def find_runs(roots: Sequence[Path]) -> dict[str, Run]:
    """Every folder with metrics below the roots by label, those in progress first, then the latest.

    A run in its first epoch has no folder yet, only its NAME.state.
    """
    found = [(recovered_of(file.parent) / METRICS, root) for root in roots for file in root.rglob(METRICS)]
    found += [(state.with_suffix("") / METRICS, root) for root in roots for state in root.rglob("*.state")]
    files = {file.resolve(): file for file, root in found if not _hidden(file, root)}
    runs: dict[str, Run] = {}
    for file in sorted(files.values(), key=_written, reverse=True):
        label = file.parent.name if file.parent.name not in runs else "/".join(file.parts[-3:-1])
        label = markless(label)
        runs[label] = _described(label, file.parent)
    return dict(sorted(runs.items(), key=lambda item: not item[1].in_progress))


def _described(label: str, path: Path) -> Run:
    """`describe`, or of a run that cannot be read, why."""
    try:
        return describe(label, path)
    except (ValueError, OSError) as error:
        return Run(label, path, False, None, problem=answer(error) or str(error))


def describe(label: str, path: Path) -> Run:
    """The state of a run as its files are now: in progress while epochs are missing and something was written lately.

    A run's folder is a whole checkpoint after every epoch; its logs between epochs are in `NAME.state` beside it.
    """
    files = [path / METRICS, *path.with_name(f"{path.name}.state").rglob("*")]
    times = [_written(file) for file in files if file.is_file()]
    lately = any(
        abs(time.time() - each) < STALE_SECONDS for each in times
    )  # not the future, after a clock was set back
    if not (path / METRICS).is_file() and not path.is_dir():  # in its first epoch
        return Run(label, path, lately, None, False, max(times, default=0.0))
    rows, record = read_rows(path), _record(path)
    epochs, model = _find_epochs(record), record.get("model")
    single = isinstance(model, dict) and model.get("position_bias") == "single"
    missing = epochs is not None and (not rows or rows[-1]["epoch"] + 1 < epochs)
    written, held_out = max(times, default=0.0), _find_held_out(record)
    return Run(label, path, missing and lately, epochs, single, written, held_out=held_out)


def read_rows(path: Path) -> list[dict[str, float]]:
    """One row an epoch from metrics.csv: rows of one epoch are joined, blank and unfinished cells left out.

    What was measured after the last epoch (a row without one, as pruning adds) belongs to it.
    """
    epochs: dict[int, dict[str, float]] = {}
    columns, rows = steady(path, lambda folder: read_table(folder / METRICS))
    for number, row in enumerate(rows):
        values = {markless(key): value for key, cell in row.items() if (value := _number(cell)) is not None}
        told = values.get("epoch", max(epochs, default=0) if "epoch" in columns else number)
        if 0 <= told < MOST_EPOCHS:  # NaN is not
            epochs.setdefault(int(told), {"epoch": float(int(told))}).update(values | {"epoch": float(int(told))})
    return [epochs[epoch] for epoch in sorted(epochs)]


def headline(rows: Sequence[dict[str, float]], epochs: int | None, *, held_out: bool = True) -> list[tuple[str, str]]:
    """Up to four (name, text) pairs for the top of the page: the epoch and the last accuracy, loss and entropy.

    Without `held_out`, validation images are trained on, and their numbers stand nowhere here.
    """
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
        names = [name for name in last if word in name.lower() and (held_out or not name.lower().startswith("val"))]
        apart = [name for name in names if any(part in name.lower() for part in ("test", "val"))]
        means = [name for name in names if name.endswith("/mean")]
        for name in (apart or means or names)[-1:]:
            title = name.replace("_", " ").replace("/", " ").capitalize()
            found.append((title, form.format(scale * last[name])))
    return found[:4]


def _written(file: Path) -> float:
    """When a file was written, 0 where it was just replaced."""
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


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
        return steady(path, lambda folder: read_yaml(folder / CONFIG))
    except (InputError, OSError):
        return {}


def _find_held_out(record: dict[str, Any]) -> bool:
    """`data.held_out` of a run's recipe; True where it does not say."""
    recipe = record.get("recipe")
    data = recipe.get("data") if isinstance(recipe, dict) else None
    return not isinstance(data, dict) or data.get("held_out", True) is not False


def _find_epochs(record: Any) -> int | None:
    """The first `epochs` or `max_epochs` in nested mappings."""
    if not isinstance(record, dict):
        return None
    for name in ("epochs", "max_epochs"):
        if isinstance(record.get(name), int) and 0 < record[name] < MOST_EPOCHS:
            return int(record[name])
    return next((found for part in record.values() if (found := _find_epochs(part))), None)
