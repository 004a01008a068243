"""images.json as a result, and as the Markdown that docs/results.md shows: `aft-lens bench images_table`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from matplotlib.figure import Figure, SubFigure

from analyses.bench.images.record import NAME, ImagesRecord
from analyses.provenance import RESULTS
from analyses.result import Result, Table, read_record
from analyses.theme import axes, layout


@dataclass(frozen=True)
class ImagesBench(Result):
    """Images a second of every stage, of training and evaluation from files and from memory."""

    name = Path(NAME).stem
    size = (8.0, 4.5)

    measured: ImagesRecord

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> "ImagesBench":
        """From the content of the JSON."""
        return cls(ImagesRecord.read(record))

    def record(self) -> dict[str, Any]:
        """Everything measured, with the command that measured it."""
        return self.measured.record()

    def table(self) -> Table:
        """A stage or run a row; what they come to below."""
        rows = [[name, f"{rate:,.0f}", where] for name, rate, where in self._rates()]
        ratios = ", ".join(f"{name} {value:.2f}" for name, value in self.measured.ratios.items())
        words = f"Ratios: {ratios}. " if ratios else ""
        memory = ", ".join(f"{value:,.0f}" for value in self.measured.memory_mib)
        note = (
            f"{words}Host memory of the loader after each pass, MiB: {memory}. {self.measured.method} On "
            f"{self.measured.hardware} with {self.measured.cores} processor cores, PyTorch "
            f"{self.measured.versions['torch']}. Made by: `{self.measured.command}`"
        )
        return Table(("Stage or run", "Images/s", "On"), rows, note=note)

    def markdown(self) -> str:
        """The table and what it was measured on."""
        return f"{self.table().markdown()}\n\n{self.table().note}"

    def plot(self, figure: Figure | SubFigure) -> None:
        """Images a second as bars."""
        axis = figure.subplots()
        names, rates, _ = zip(*self._rates(), strict=True)
        axis.barh(names, rates)
        axis.invert_yaxis()
        axis.set_xlabel("images/s")

    def interactive(self) -> go.Figure:
        """The same with values under the pointer."""
        names, rates, _ = zip(*self._rates(), strict=True)
        figure = go.Figure(go.Bar(x=rates, y=names, orientation="h", hovertemplate="%{y}: %{x:,.0f} images/s"))
        figure.update_xaxes(title="images/s")
        figure.update_yaxes(autorange="reversed")
        return layout(axes(figure), height=480)

    def _rates(self) -> list[tuple[str, float, str]]:
        """Name, images a second and place of everything that was measured."""
        return [(stage.name, stage.images_per_second, stage.where) for stage in self.measured.stages] + [
            (run.name, run.images_per_second, self.measured.hardware) for run in self.measured.runs
        ]


def command(out: Path | None = None) -> None:
    """Print the table of images.json; FileNotFoundError with the next step without one."""
    found = read_record((out or RESULTS) / NAME, "`aft-lens bench images` on a machine with a GPU")
    print(ImagesBench.read(found).markdown())
