"""multi_gpu.json as a result, and as the Markdown that the README shows: `aft-lens bench multi_gpu_table`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import plotly.graph_objects as go
from matplotlib.figure import Figure, SubFigure

from analyses.bench.multi_gpu.record import NAME, GPUCount, Resumed
from analyses.provenance import RESULTS
from analyses.result import Result, Table, read_record
from analyses.study.tables import mean_and_deviation
from analyses.theme import axes, layout

NONE = "–"


@dataclass(frozen=True)
class MultiGPUBench(Result):
    """Speed, memory and accuracy by number of GPUs, and what became of a run that went on with fewer."""

    name = Path(NAME).stem
    size = (9.0, 4.0)

    command: str
    hardware: str
    versions: Mapping[str, str]
    seeds: Sequence[int]
    method: str
    rows: Sequence[GPUCount] = ()
    resumed: Resumed | None = None
    """None where it is not measured yet."""

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> "MultiGPUBench":
        """From the content of the JSON."""
        resumed = Resumed(**record["resumed"]) if record.get("resumed") else None
        return cls(**{**record, "rows": [GPUCount.read(row) for row in record["rows"]], "resumed": resumed})

    def record(self) -> dict[str, Any]:
        """Everything measured, with the command that measured it."""
        made = {key: getattr(self, key) for key in ("command", "hardware", "versions", "seeds", "method")}
        resumed = {} if self.resumed is None else {"resumed": asdict(self.resumed)}
        return {**made, "rows": [row.record() for row in self.rows], **resumed}

    def table(self) -> Table:
        """A number of GPUs a row."""
        columns = (
            "GPUs", "Images/s", "Scaling efficiency", "Peak, MiB a GPU", "Test accuracy, % (mean ± sd)",
            "Difference to 1 GPU [95 %], points",
        )  # fmt: skip
        rows = [
            [
                str(row.gpus),
                f"{row.images_per_second:,.0f}",
                f"{row.scaling_efficiency:.3f}",
                f"{row.peak_memory_mib:,.0f}",
                mean_and_deviation(row.test_accuracy) if row.test_accuracy else NONE,
                f"[{row.difference[0]:+.2f}, {row.difference[1]:+.2f}]" if row.difference else NONE,
            ]
            for row in self.rows
        ]
        return Table(columns, rows, note="\n\n".join(self._notes()), words=0)

    def markdown(self) -> str:
        """The table, what became of the resumed run, and what it was measured on."""
        return "\n\n".join([self.table().markdown(), *self._notes()])

    def plot(self, figure: Figure | SubFigure) -> None:
        """Images a second beside those of as many single GPUs, and accuracies with their deviation."""
        speed, accuracy = figure.subplots(1, 2)
        counts, rates = [row.gpus for row in self.rows], [row.images_per_second for row in self.rows]
        speed.loglog(counts, rates, "o-", label="measured")
        speed.loglog(counts, self._single(), "--", color="#888888", label="as many single GPUs")
        speed.set(xlabel="GPUs", ylabel="training, images/s")
        speed.legend()
        known = [row for row in self.rows if len(row.test_accuracy) > 1]
        means, deviations = ([of(row.test_accuracy) for row in known] for of in (fmean, stdev))
        accuracy.errorbar([row.gpus for row in known], means, deviations, fmt="o", capsize=4)
        accuracy.set(xlabel="GPUs", ylabel="test accuracy, % (mean ± sd)")
        for axis in (speed, accuracy):
            axis.set_xscale("log", base=2)
            axis.set_xticks(counts, list(map(str, counts)))
            axis.minorticks_off()
        speed.set_yticks(rates, [f"{rate:,.0f}" for rate in rates])

    def interactive(self) -> go.Figure:
        """Images a second with everything else under the pointer."""
        counts, cells = [row.gpus for row in self.rows], self.table().mappings()
        texts = ["<br>".join(f"{name}: {value}" for name, value in row.items()) for row in cells]
        rates = [row.images_per_second for row in self.rows]
        figure = go.Figure(
            [
                go.Scatter(x=counts, y=rates, name="measured", text=texts, hovertemplate="%{text}<extra></extra>"),
                go.Scatter(x=counts, y=self._single(), name="as many single GPUs", line={"dash": "dash"}),
            ]
        )
        figure.update_xaxes(type="log", title="GPUs", tickvals=counts)
        figure.update_yaxes(type="log", title="training, images/s")
        return layout(axes(figure), height=420)

    def _single(self) -> list[float]:
        """Images a second of each number of single GPUs."""
        return [row.images_per_second / row.scaling_efficiency for row in self.rows]

    def _notes(self) -> list[str]:
        """The run that went on with fewer GPUs, if one did; method, hardware, seeds and command."""
        notes = f"{self.method} On {self.hardware}, PyTorch {self.versions['torch']}, seeds "
        notes += f"{', '.join(map(str, self.seeds))}. Made by: `{self.command}`"
        if self.resumed is None:
            return [notes]
        run = self.resumed
        return [
            f"Stopped on {run.gpus_before} GPUs after {run.epochs_before} epochs and resumed on {run.gpus_after}: "
            f"{run.epochs} epochs, test accuracy {run.test_accuracy:.2f} %.",
            notes,
        ]


def command(out: Path | None = None) -> None:
    """Print the table of multi_gpu.json; FileNotFoundError with the next step without one."""
    found = read_record((out or RESULTS) / NAME, "`aft-lens bench multi_gpu` on two GPUs or more")
    print(MultiGPUBench.read(found).markdown())
