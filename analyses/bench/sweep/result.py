"""What sharing a sweep costs, as one result, and what a million cells would take by it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import plotly.graph_objects as go
from matplotlib.figure import Figure, SubFigure

from analyses.result import Result, Table
from analyses.theme import axes, layout

ALLOWED = 1.15
"""Times the ideal that sharing may take."""
QUIET = 0.5
"""Load of the machine up to which wall times are those of the sweep alone."""
MILLION, DAY = 10**6, 86400.0
FLEETS = (1, 8, 64, 512)
"""Workers, of one core each, that the cost of a million cells is said for."""


@dataclass(frozen=True)
class Way:
    """One way of doing all cells."""

    name: str
    processes: int
    """That did cells."""
    seconds: float
    """Wall time."""
    cpu: float
    """Processor time of workers and driver."""
    load: float
    """Of the machine as it began."""
    cell: float
    """Median processor time of a cell, seconds."""


@dataclass(frozen=True)
class SweepBench(Result):
    """The same cells in one process and on Ray workers."""

    name = "sweep"

    ways: tuple[Way, Way]
    """One process, then Ray."""
    cores: int
    equal: int
    """Rows that are alike to the last bit."""
    cells: Sequence[float]
    """Processor time of each cell of the first way, rising."""
    images: int
    """A cell."""
    provenance: Mapping[str, Any]

    @property
    def ratio(self) -> float:
        """Wall time on Ray over the ideal, that of one process shared by the cores."""
        return self.ways[1].seconds / (self.ways[0].seconds / self.cores)

    @property
    def work(self) -> float:
        """Processor time on Ray over that of one process: 1 where sharing costs nothing."""
        return self.ways[1].cpu / self.ways[0].cpu

    @property
    def quiet(self) -> bool:
        """Whether nothing else took the machine's time, so that wall times say something."""
        return self.ways[0].load <= QUIET

    def table(self) -> Table:
        """A row a way."""
        rows = [
            [way.name, str(way.processes), f"{way.seconds:.1f}", f"{way.cpu:.1f}", f"{way.load:.2f}", f"{way.cell:.3f}"]
            for way in self.ways
        ]
        lines = [
            f"rows alike to the last bit: {self.equal} of {len(self.cells)}",
            f"processor time on Ray over one process's: {self.work:.3f} (allowed {ALLOWED})",
            f"wall time on Ray over the ideal of {self.cores} cores: {self.ratio:.3f} (allowed {ALLOWED})"
            + ("" if self.quiet else ", on a machine that was busy with other work: it says nothing"),
            million(self.record()).text(),
        ]
        columns = ["way", "processes", "seconds", "cpu", "load", "cpu s / cell"]
        return Table(columns, rows, f"{len(self.cells)} cells of {self.images} images", "\n".join(lines), words=1)

    def plot(self, figure: Figure | SubFigure) -> None:
        """Processor time of both ways."""
        axis = figure.subplots()
        axis.bar([way.name for way in self.ways], [way.cpu for way in self.ways])
        axis.set_ylabel("processor time, s")

    def interactive(self) -> go.Figure:
        """The same with values under the pointer."""
        figure = go.Figure(go.Bar(x=[way.name for way in self.ways], y=[way.cpu for way in self.ways]))
        return layout(axes(figure), height=360)

    def record(self) -> dict[str, Any]:
        """Both ways, and what they say."""
        return {
            **self.provenance, "images": self.images, "cells": len(self.cells), "cores": self.cores,
            "ways": [asdict(way) for way in self.ways], "equal": self.equal, "work_ratio": self.work,
            "wall_ratio": self.ratio, "quiet": self.quiet, "cell_seconds": list(self.cells),
        }  # fmt: skip


def million(record: Mapping[str, Any]) -> Table:
    """What 10^6 such cells take on so many one-core workers, by the mean cell and the measured cost of sharing."""
    seconds = fmean(record["cell_seconds"])
    rows = [[str(count), f"{MILLION * seconds * (1 if count == 1 else record['work_ratio']) / count / DAY:,.1f}"]
            for count in FLEETS]  # fmt: skip
    title = f"10⁶ cells of {record['images']} images, {seconds:.2f} s of one core each (mean of {record['cells']})"
    return Table(["workers", "days"], rows, title)
