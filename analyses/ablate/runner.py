"""Replaced models as cells: each measured once, kept by what it depends on, and found again by its heads and rungs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from analyses.ablate.bench import Row
from analyses.ablate.replacer import Edits
from analyses.cells import HERE, Cell, Crew, run_cells
from analyses.store import Store, fingerprint

METHOD = 1
"""Counted up when rows measured before are no longer what would be measured now."""


@dataclass(frozen=True)
class Model:
    """One replaced model to measure."""

    edits: tuple[tuple[tuple[int, int], Any], ...]
    """Sorted (head, rung)."""
    start: int
    """Layer from which it may differ from the models beside it."""
    choosing: bool
    """True: measured on the calibration images, to choose heads by."""

    @classmethod
    def of(cls, edits: Edits, start: int | None = None, *, choosing: bool = False) -> "Model":
        """With the first edited layer as start if left out."""
        first = min((layer for layer, _ in edits), default=0)
        return cls(tuple(sorted(edits.items())), first if start is None else start, choosing)

    @property
    def name(self) -> str:
        """Equal for equal models, however they were come by."""
        edits = [[*head, rung.name] for head, rung in self.edits]
        return fingerprint(edits, self.choosing)


@dataclass
class Runner:
    """Sends models out, each once."""

    measure: Callable[[Model], Row]
    """A function of a module or a partial of one where there are several processes."""
    mark: str
    """Fingerprint of all that rows depend on beside the model."""
    store: Store
    crew: Crew = HERE
    """Its budget is for each list of models."""
    progress: bool = False
    asked: int = 0
    """Models that were asked for."""
    unique: int = 0
    """Those that differ."""

    def __post_init__(self) -> None:
        self._names: set[str] = set()

    def rows(self, models: Sequence[Model], words: str) -> list[Row]:
        """What is measured of each.

        Raises ValueError, with every reason, if some failed, and Stopped where the time is over.
        """
        different = {model.name: model for model in models}
        self.asked += len(models)
        self.unique += len(set(different) - self._names)
        self._names |= set(different)
        ordered = sorted(different.values(), key=lambda model: (model.choosing, model.start, model.edits))
        cells = [
            Cell(
                model.name, fingerprint(self.mark, METHOD, model.name), partial(self.measure, model),
                "choosing" if model.choosing else "test",
            )
            for model in ordered
        ]  # fmt: skip
        missing = sum(self.store.get(cell.name, cell.mark) is None for cell in cells)
        alone = missing < 2 and not self.crew.ray  # it is done before a process has started
        crew = replace(self.crew, workers=0) if alone else self.crew
        found = run_cells(cells, self.store, crew, words=words if self.progress else "")
        found.check_whole(f"models ({words})", self.store)
        return [Row.read(found.rows[model.name]) for model in models]
