"""A model, its images and what replaces its heads, opened by what a command said; in each process once."""

import multiprocessing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from analyses.ablate.bench import Bench, Row
from analyses.ablate.calibration import Calibration, calibrate
from analyses.ablate.runner import Model
from analyses.cells import share_cores
from analyses.explain import opened as explained
from analyses.store import fingerprint


@dataclass(frozen=True)
class Setup(explained.Setup):
    """The same for replaced heads."""

    batch: int = 32
    choosing: int = 0
    """The first of the calibration images, by which heads are chosen where an order is measured."""


class Opened(explained.Opened):
    """What a setup says, at hand; calibration and probe are kept in a folder."""

    setup: Setup

    def __init__(self, setup: Setup, folder: Path, *, progress: bool = False) -> None:
        super().__init__(setup, folder, progress=progress)
        self._benches: dict[bool, Bench] = {}
        self.calibration = self._calibration()

    def bench(self, choosing: bool) -> Bench:
        """Where models are measured: test images, or those that heads are chosen by."""
        if choosing not in self._benches:
            setup = self.setup
            split, images = ("train", setup.choosing) if choosing else ("test", setup.images)
            self._benches[choosing] = Bench(
                self.reader, self.calibration, self.batches(split, images), classes=setup.labels != "none",
                own_labels=setup.labels == "model", bfloat16=setup.bfloat16, seed=setup.seed,
            )  # fmt: skip
        return self._benches[choosing]

    def _calibration(self) -> Calibration:
        mark, path = fingerprint(self.setup, "calibration"), self.kept.folder / "calibration.safetensors"
        if self.kept.get("calibration", mark) is not None and path.is_file():
            return Calibration.load(path)
        found = calibrate(self.reader, self.batches("train", self.setup.calibration), progress=self.progress)
        found.save(path)
        self.kept.put("calibration", mark, {"images": found.positions.images})
        return found


@lru_cache(maxsize=1)
def opened(setup: Setup, folder: Path) -> Opened:
    """The one that this process measures with."""
    share_cores()
    return Opened(setup, folder, progress=multiprocessing.parent_process() is None)


def measured(model: Model, *, setup: Setup, folder: Path) -> Row:
    """One replaced model, in whatever process."""
    return opened(setup, folder).bench(model.choosing).row(dict(model.edits), model.start)
