"""The record of a GPU as a result, and as the Markdown that the README shows: `aft-lens bench gpu_table`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from matplotlib.figure import Figure, SubFigure

from analyses.bench.gpu.comparisons import document
from analyses.bench.gpu.figure import draw
from analyses.bench.gpu.page import page
from analyses.bench.gpu.record import NAME, GPURecord
from analyses.bench.gpu.tables import made_on, markdown, ratio_table
from analyses.provenance import RESULTS
from analyses.result import Result, Table, read_record


@dataclass(frozen=True)
class GPUBench(Result):
    """Operators and models on one GPU."""

    name = NAME
    size = (15.0, 6.8)

    measured: GPURecord

    def record(self) -> dict[str, Any]:
        """Everything measured, with the command that measured it, and the ratios that follow."""
        return document(self.measured)

    def table(self) -> Table:
        """The ratios beside what they should be."""
        table = ratio_table(self.measured)
        return Table(table.columns, table.rows, note=made_on(self.measured), words=table.words)

    def markdown(self) -> str:
        """Ratios, operators, models and rooflines, and what they were measured on."""
        return markdown(self.measured)

    def plot(self, figure: Figure | SubFigure) -> None:
        """Operators on one grid, time per token over grids, ratios beside what they should be."""
        draw(figure, self.measured)

    def interactive(self) -> go.Figure:
        """The same with the values under the pointer."""
        return page(self.measured)


def command(out: Path | None = None) -> None:
    """Print the tables of every GPU's record and draw its figure anew; FileNotFoundError with the next step without."""
    folder = out or RESULTS
    names = sorted(path.stem for path in folder.glob("gpu_*.json")) or [NAME]
    for name in names:
        result = GPUBench(GPURecord.read(read_record(folder / f"{name}.json", "`aft-lens bench gpu` on a GPU")))
        print(result.markdown())
        for drawn in (*result.write_figures(folder, name), result.write_page(folder / f"{name}.html")):
            print(f"wrote {drawn}", file=sys.stderr)
