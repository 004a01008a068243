"""causal.json as a result and as Markdown: `aft-lens bench causal_table`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from matplotlib.figure import Figure, SubFigure

from analyses.bench.causal.record import COMPARISONS, NAME, CausalRecord, Comparison
from analyses.bench.gpu.tables import operator_table
from analyses.provenance import RESULTS
from analyses.result import Result, Table, read_record
from analyses.theme import SERIES, axes, layout

NONE = "–"


@dataclass(frozen=True)
class CausalBench(Result):
    """Causal operators, decoders and generation on one GPU."""

    name = NAME
    size = (8.0, 4.2)

    measured: CausalRecord

    def record(self) -> dict[str, Any]:
        """Everything measured, with the command that measured it, and the ratios that follow."""
        return self.measured.record()

    def table(self) -> Table:
        """The ratios beside what they should be."""
        rows = [self._row(comparison) for comparison in COMPARISONS]
        return Table(
            ("Compared", "Ours", "Theirs", "Ratio", "Aim", "At least", "Met"), rows, note=self.made_on(), words=1
        )

    def markdown(self) -> str:
        """Ratios, operators, training steps and generation, and what they were measured on."""
        return f"{self.tables()}\n\n{self.made_on()}"

    def tables(self) -> str:
        """Ratios, operators, training steps and generation."""
        measured = self.measured
        steps = [
            [row.mixer, str(row.batch), f"{row.length:,}", f"{row.milliseconds:.2f}", f"{row.peak_gib:.2f}"]
            for row in measured.training
        ]
        parts = [
            self.table().markdown(),
            operator_table(measured.operators).markdown(),
            Table(("Decoder's mixer", "Batch", "T", "Training step, ms", "Peak, GiB"), steps, words=1).markdown(),
        ]
        if measured.generation:
            speeds = [
                [row.mixer, str(row.batch), f"{row.context:,}", f"{row.tokens_per_second:,.0f}"]
                for row in measured.generation
            ]
            parts.append(Table(("Decoder's mixer", "Batch", "Context", "Tokens/s"), speeds, words=1).markdown())
        return "\n\n".join(parts)

    def made_on(self) -> str:
        """Method, backends, hardware, PyTorch and command."""
        measured = self.measured
        picked = ", ".join(f"T = {int(length):,}: {name}" for length, name in measured.attention.items())
        return (
            f"{measured.method} Attention's backend: {picked}. On {measured.hardware}, PyTorch "
            f"{measured.versions['torch']}. Made by: `{measured.command}`"
        )

    def plot(self, figure: Figure | SubFigure) -> None:
        """Every measured ratio as a bar, with a line where it should be at least."""
        found = self._measured()
        axis = figure.subplots()
        axis.barh([one.words for one, _ in found], [ratio for _, ratio in found], color=SERIES[0], height=0.6)
        for place, (one, ratio) in enumerate(found):
            axis.plot([one.least] * 2, [place - 0.4, place + 0.4], color=SERIES[1], lw=2)
            axis.annotate(
                f"{ratio:.2f}", (1, place), xycoords=("axes fraction", "data"), xytext=(6, 0),
                textcoords="offset points", va="center", fontsize=8,
            )  # fmt: skip
        axis.invert_yaxis()
        axis.set_xscale("log", base=2)
        ticks = (0.25, 0.5, 1, 2, 4, 8)
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.tick_params(axis="y", labelsize=8)
        axis.set_xlabel("ours over theirs (log scale); lines: at least")

    def interactive(self) -> go.Figure:
        """The ratios with what is asked for under the pointer."""
        found = self._measured()
        figure = go.Figure(
            go.Bar(
                x=[ratio for _, ratio in found], y=[one.words for one, _ in found], orientation="h",
                marker_color=SERIES[0], customdata=[_asked(one) for one, _ in found],
                hovertemplate="%{x:.3f}, asked for %{customdata}<extra></extra>",
            )
        )  # fmt: skip
        figure.update_yaxes(autorange="reversed")
        figure.update_xaxes(type="log", title="ours over theirs")
        return layout(axes(figure), height=420)

    def _measured(self) -> list[tuple[Comparison, float]]:
        found = self.measured.ratios()
        return [(one, found[one.key]) for one in COMPARISONS if one.key in found]

    def _row(self, comparison: Comparison) -> list[str]:
        sides = [comparison.read(self.measured, side) for side in (0, 1)]
        ratio = comparison.ratio(self.measured)
        unit = {"step": "ms", "speed": "tokens/s"}.get(comparison.sides[0][0], "µs")
        cells = [NONE if value is None else f"{value:,.1f} {unit}" for value in sides]
        met = NONE if ratio is None else "yes" if comparison.met(ratio) else "no"
        shown = NONE if ratio is None else f"{ratio:.3f}"
        return [comparison.words, *cells, shown, f"{comparison.aim:g}", _asked(comparison), met]


def _asked(comparison: Comparison) -> str:
    """The ratio that should be reached, e.g. ≤ 1.5."""
    return f"{'≥' if comparison.larger_is_better else '≤'} {comparison.least:g}"


def command(out: Path | None = None) -> None:
    """Print the tables of causal.json and draw its figure anew; FileNotFoundError with the next step without one."""
    folder = out or RESULTS
    found = read_record(folder / f"{NAME}.json", "`aft-lens bench causal` on a GPU")
    result = CausalBench(CausalRecord.read(found))
    print(result.markdown())
    for drawn in result.write_figures(folder, NAME):
        print(f"wrote {drawn}", file=sys.stderr)
