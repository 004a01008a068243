"""Ways to few positions a head on one curve, accuracy over positions kept: `aft-lens study rivals`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import plotly.graph_objects as go
from matplotlib.figure import Figure, SubFigure

from analyses.cells import Crew
from analyses.provenance import command_line
from analyses.result import Result, Table
from analyses.study.configurations import FAMILIES, RIVAL_WORDS
from analyses.study.plan import Study
from analyses.study.record import Run, by_configuration
from analyses.study.tables import mean_and_deviation
from analyses.study.train import read_runs
from analyses.theme import axes, layout

METHODS: Mapping[str, str] = {
    "single": "single position (Eq. 10)",
    "entropy": "entropy (Eq. 9), then pruned by magnitude",
    "conv": "dense, then pruned by magnitude",
    "random": "random position, not learned",
    "ring": "neighbour, not learned",
    "pool": "pooling alone",
    **RIVAL_WORDS,
}
"""The paper's ways, controls and rivals, by the first part of their configurations' names."""
DENSE = ("conv", "entropy")
"""Whose models are pruned after training."""


@dataclass(frozen=True)
class Point:
    """A way to few positions, at one setting."""

    family: str
    method: str
    """Of `METHODS`."""
    setting: str
    """What sets the number of positions: the configuration's name, or the offsets kept."""
    positions: float
    """Mean positions a head with a bias, over heads, layers and seeds."""
    accuracy: Sequence[float]
    """Percent of the test images, by seed."""


@dataclass(frozen=True)
class SparseRivals(Result):
    """Accuracy over positions kept, way by way, at one training budget."""

    name = "sparse_rivals"
    size = (8.0, 5.0)

    command: str
    hardware: Sequence[str]
    versions: Mapping[str, str]
    epochs: int
    points: Sequence[Point]

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> "SparseRivals":
        """From the content of the JSON."""
        return cls(**{**record, "points": [Point(**point) for point in record["points"]]})

    def record(self) -> dict[str, Any]:
        """Every point, with the command that wrote them."""
        return asdict(self)

    def table(self) -> Table:
        """A point a row."""
        rows = [
            [FAMILIES[point.family].words, METHODS[point.method], point.setting, f"{point.positions:.1f}",
             mean_and_deviation(point.accuracy), str(len(point.accuracy))]
            for point in self.points
        ]  # fmt: skip
        columns = ("Data", "Method", "Setting", "Positions a head", "Test accuracy, %", "Seeds")
        note = f"{self.epochs} epochs each, on {', '.join(self.hardware)}\nMade by: `{self.command}`"
        return Table(columns, rows, note=note, words=3)

    def plot(self, figure: Figure | SubFigure) -> None:
        """A line a method, a panel a data set."""
        families = list(dict.fromkeys(point.family for point in self.points))
        panels = figure.subplots(1, len(families), squeeze=False)[0]
        for panel, family in zip(panels, families, strict=True):
            for method in METHODS:
                points = self._line(family, method)
                if points:
                    panel.errorbar(
                        [point.positions for point in points], [fmean(point.accuracy) for point in points],
                        [_half(point.accuracy) for point in points], marker="o", ms=4, lw=1.2, label=METHODS[method],
                    )  # fmt: skip
            panel.set_xscale("symlog", linthresh=1)
            panel.set_xticks([0, 1, 2, 4, 8, 16, 32, 64, 121], ["0", "1", "2", "4", "8", "16", "32", "64", "121"])
            panel.minorticks_off()
            panel.set_xlabel("positions kept a head")
            panel.set_title(FAMILIES[family].words)
        panels[0].set_ylabel("test accuracy, %; bars: lowest to highest seed")
        panels[-1].legend(fontsize=7)

    def interactive(self) -> go.Figure:
        """The same with the values under the pointer, data sets in the names."""
        figure = go.Figure()
        for family in dict.fromkeys(point.family for point in self.points):
            for method in METHODS:
                points = self._line(family, method)
                if points:
                    figure.add_scatter(
                        x=[point.positions for point in points], y=[fmean(point.accuracy) for point in points],
                        name=f"{FAMILIES[family].words}: {METHODS[method]}", mode="lines+markers",
                        customdata=[[point.setting, len(point.accuracy)] for point in points],
                        hovertemplate="%{customdata[0]}: %{x:.1f} positions, %{y:.2f} %, %{customdata[1]} seeds",
                    )  # fmt: skip
        figure.update_xaxes(title="positions kept a head")
        figure.update_yaxes(title="test accuracy, %")
        return layout(axes(figure), height=480)

    def _line(self, family: str, method: str) -> list[Point]:
        """A method's points from few positions to many."""
        own = [point for point in self.points if point.family == family and point.method == method]
        return sorted(own, key=lambda point: point.positions)


def points(runs: Sequence[Run]) -> list[Point]:
    """Every point that runs of the plan "sparsity" give."""
    found = []
    for family in dict.fromkeys(run.family for run in runs):
        table = by_configuration([run for run in runs if run.family == family])
        for name, by_seed in table.items():
            method = name.rpartition("-")[0] if name not in METHODS else name
            if method not in METHODS:
                continue
            own = list(by_seed.values())
            if name in DENSE:
                found += [
                    Point(family, method, f"{keep} kept", float(keep), [run.pruned[keep] for run in own])
                    for keep in own[0].pruned
                ]
            kept = [run.places.positions for run in own if run.places and run.places.positions is not None]
            found.append(Point(family, method, name, fmean(kept), [run.accuracy for run in own]))
    return found


def run(study: Study, *, crew: Crew, out: Path) -> None:
    """Print and write sparse_rivals.json from the finished runs of the plan "sparsity" of all data sets.

    Raises ValueError, with the next step, without any run.
    """
    runs: list[Run] = []
    for family in FAMILIES:
        runs += read_runs(replace(study, plan="sparsity", family=family, only=()))
    if not runs:
        raise ValueError(
            f"{study.runs} has no runs of the plan sparsity; train them: `aft-lens study train --study.plan sparsity`"
        )
    hardware = sorted({each.hardware for each in runs})
    result = SparseRivals(command_line(), hardware, runs[0].versions, runs[0].epochs, points(runs))
    result.write_record(out / f"{result.name}.json")
    print(result)


def _half(scores: Sequence[float]) -> float:
    """Half the way from the lowest to the highest."""
    return (max(scores) - min(scores)) / 2
