"""What `aft-lens bench ops` measured, as ops_cpu.json has it: tables and the curves' figure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import plotly.graph_objects as go
from matplotlib.figure import Figure, SubFigure

from analyses.bench.operators.figure import draw, page
from analyses.bench.operators.record import CurvePoint, FormTimes
from analyses.result import Result, Table


@dataclass(frozen=True)
class OpsBench(Result):
    """Ratios to softmax attention, every form at every shape, and curves over the length."""

    name = "ops_cpu"
    size = (11.0, 5.5)

    ratios: Mapping[str, float]
    """Ours over theirs, with freed memory kept in the process."""
    memory_exponents: Mapping[str, float]
    """Least-squares slope of peak memory over length, log-log, by curve."""
    time_exponents: Mapping[str, float]
    """The same of time."""
    milliseconds: Mapping[str, float]
    """Medians behind the ratios."""
    ratios_default_allocator: Mapping[str, float]
    """The ratios with glibc's allocator as it starts."""
    forms: Sequence[FormTimes]
    curves: Mapping[str, Sequence[CurvePoint]]
    machine: Mapping[str, Any] = field(default_factory=dict)
    """Command, time, hardware, versions, load and method."""

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> "OpsBench":
        """From a record such as `record()` gives."""
        forms = [FormTimes(**row) for row in record["forms"]]
        curves = {name: [CurvePoint(**point) for point in points] for name, points in record["curves"].items()}
        plain = {key: value for key, value in record.items() if key not in ("command", "forms", "curves")}
        return cls(**plain, forms=forms, curves=curves)

    def record(self) -> dict[str, Any]:
        """Everything measured."""
        return asdict(self)

    def table(self) -> Table:
        """The ratios."""
        rows = [
            [name, f"{value:.2f}", f"{self.ratios_default_allocator.get(name, float('nan')):.2f}"]
            for name, value in self.ratios.items()
        ]
        return Table(("ratio", "freed memory kept", "default allocator"), rows, words=1)

    def form_table(self) -> Table:
        """What `auto` takes at each shape, what is best, and the one's time over the other's."""
        rows = [[row.shape, row.auto, row.best, f"{row.auto_over_best:.2f}"] for row in self.forms]
        return Table(("shape", "auto", "best", "auto/best"), rows, words=3)

    def curve_table(self) -> Table:
        """Time and memory at each length, and their exponents."""
        lengths = sorted({point.length for points in self.curves.values() for point in points})
        rows = []
        for name, points in self.curves.items():
            cells = {point.length: f"{point.ms:.0f}/{point.peak_mib:.0f}" for point in points}
            exponents = [f"{by_curve[name]:.2f}" for by_curve in (self.memory_exponents, self.time_exponents)]
            rows.append([name, *(cells.get(length, "") for length in lengths), *exponents])
        columns = ("operator", *map(str, lengths), "memory^", "time^")
        return Table(columns, rows, note="(cells: ms / MiB above the inputs)", words=1)

    def plot(self, figure: Figure | SubFigure) -> None:
        """Time and memory over length, with fitted exponents."""
        draw(figure, self.curves)

    def interactive(self) -> go.Figure:
        """The same with the values under the pointer."""
        return page(self.curves)
