"""A sweep's evidence: accuracy against k by criterion, every rung, and one page of both."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
import torch
from matplotlib.figure import Figure, SubFigure

from aft_lens.checkpoint import commit
from aft_lens.later import later
from analyses import theme
from analyses.page import Section, write_page
from analyses.provenance import made_by
from analyses.pruning.criteria import CRITERIA
from analyses.pruning.evidence.row import RungRow
from analyses.pruning.measuring.columns import write_csv
from analyses.result import Result, Table

if TYPE_CHECKING:
    import seaborn as sns
else:
    sns = later("seaborn")


@dataclass(frozen=True)
class Point:
    """Mean and standard deviation over checkpoints of one kind, at one criterion, budget, schedule and k."""

    parent: str
    criterion: str
    budget: str
    schedule: str
    keep: float
    checkpoints: int
    parent_mean: float | None
    parent_sd: float | None
    """None of a single checkpoint."""
    pruned_mean: float | None
    pruned_sd: float | None
    finetuned_mean: float | None
    finetuned_sd: float | None

    @property
    def label(self) -> str:
        """A curve's name: the criterion, and the budget and schedule where they are not the usual ones."""
        parts = [self.criterion]
        if self.budget != "head":
            parts.append(f"{self.budget} budget")
        if self.schedule != "one-shot":
            parts.append(self.schedule)
        return ", ".join(parts)

    def stage(self, name: str) -> tuple[float | None, float]:
        """Mean and deviation (0 of a single checkpoint) of "pruned" or "finetuned"."""
        return getattr(self, f"{name}_mean"), getattr(self, f"{name}_sd") or 0.0


def curves(rows: Sequence[RungRow]) -> list[Point]:
    """The points of every curve."""
    groups: dict[tuple[Any, ...], list[RungRow]] = {}
    for row in rows:
        groups.setdefault((row.parent, row.criterion, row.budget, row.schedule, row.keep), []).append(row)
    points = []
    for (parent, criterion, budget, schedule, keep), members in groups.items():
        before, after, tuned = (
            _spread([getattr(row, f"accuracy_{stage}") for row in members])
            for stage in ("parent", "pruned", "finetuned")
        )
        points.append(Point(parent, criterion, budget, schedule, keep, len(members), *before, *after, *tuned))
    return points


def _spread(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Mean and standard deviation of those that there are."""
    known = [value for value in values if value is not None]
    mean = float(np.mean(known)) if known else None
    return mean, float(np.std(known, ddof=1)) if len(known) > 1 else None


def conditions() -> dict[str, Any]:
    """Where, when and by which line a sweep was run."""
    return {
        **made_by(), "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None, "commit": commit(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip


@dataclass(frozen=True)
class Evidence(Result):
    """Every rung of a sweep; saved as ladder.json and .csv, curve.png and .svg, and one page."""

    rows: tuple[RungRow, ...]
    made: dict[str, Any]
    """`conditions`, and the plan."""
    name = "ladder"

    @property
    def size(self) -> tuple[float, float]:  # type: ignore[override]
        """A column a kind of parent, a row a stage."""
        points = curves(self.rows)
        return 4.6 * len({point.parent for point in points}) + 1.6, 3.4 * len(_stages(points))

    def record(self) -> dict[str, Any]:
        """What made it, the largest disagreement, the curves and every rung."""
        return {
            **self.made,
            "max_abs_logit_difference": max(row.max_abs_logit_difference for row in self.rows),
            "curves": [asdict(point) for point in curves(self.rows)],
            "rungs": [asdict(row) for row in self.rows],
        }

    def table(self) -> Table:
        """A row a rung."""
        names = (
            "checkpoint", "criterion", "budget", "schedule", "keep", "accuracy_parent", "accuracy_pruned",
            "accuracy_finetuned", "max_abs_logit_difference", "parameters", "bytes", "operations", "form",
        )  # fmt: skip
        rows = [[_cell(getattr(row, name)) for name in names] for row in self.rows]
        return Table([name.replace("_", " ") for name in names], rows)

    def plot(self, figure: Figure | SubFigure) -> None:
        """Accuracy against k for every criterion, one column a kind of parent; below, after fine-tuning."""
        draw_curves(figure, curves(self.rows))

    def interactive(self) -> go.Figure:
        """Accuracy against k, after fine-tuning where there was any."""
        figure, points = go.Figure(), curves(self.rows)
        for parent, label in dict.fromkeys((point.parent, point.label) for point in points):
            series = sorted((p for p in points if (p.parent, p.label) == (parent, label)), key=lambda p: p.keep)
            stage = "pruned" if series[0].finetuned_mean is None else "finetuned"
            figure.add_trace(
                go.Scatter(
                    x=[p.keep for p in series], y=[100 * (p.stage(stage)[0] or np.nan) for p in series],
                    name=f"{parent}: {label}",
                )
            )  # fmt: skip
        theme.layout(theme.axes(figure), height=420)
        figure.update_xaxes(title="offsets kept a head (k)")
        figure.update_yaxes(title="test accuracy (%)")
        return figure

    def save(self, out: Path | str, name: str | None = None) -> list[Path]:
        """Write ladder.json, ladder.csv, curve.png, curve.svg and index.html into `out`."""
        out = Path(out)
        paths = self.write_record(out / f"{name or self.name}.json"), write_csv(self.rows, out / "ladder.csv")
        sections = [Section("Accuracy against offsets kept", figures=[("", self.interactive())]),
                    Section("Every rung", table=self.table())]  # fmt: skip
        page = write_page(out / "index.html", "The ladder", str(self.made["command"]), sections, str(self.made))
        return [*paths, *self.write_figures(out, "curve"), page]


def _stages(points: Sequence[Point]) -> list[str]:
    return [name for name in ("pruned", "finetuned") if any(point.stage(name)[0] is not None for point in points)]


def draw_curves(figure: Figure | SubFigure, points: Sequence[Point]) -> None:
    """Accuracy against k for every criterion, one column a kind of parent; below, after fine-tuning."""
    parents = list(dict.fromkeys(point.parent for point in points))
    stages = _stages(points)
    with sns.axes_style("whitegrid"):
        axes = figure.subplots(len(stages), len(parents), squeeze=False, sharex=True, sharey="row")
    names = list(dict.fromkeys(point.label for point in points))
    colors = dict(zip(names, sns.color_palette("deep", len(names)), strict=True))
    for across, parent in enumerate(parents):
        mine = [point for point in points if point.parent == parent]
        for down, stage in enumerate(stages):
            axis = axes[down, across]
            for number, name in enumerate(names):
                series = sorted((p for p in mine if p.label == name), key=lambda p: p.keep)
                if not series:
                    continue
                axis.errorbar(
                    [p.keep + 0.03 * number * max(1, p.keep) for p in series],  # aside, so that bars can be told
                    [100 * (p.stage(stage)[0] or np.nan) for p in series],
                    yerr=[100 * p.stage(stage)[1] for p in series],
                    marker="o", markersize=3, linestyle="--" if CRITERIA[series[0].criterion].control else "-",
                    color=colors[name], capsize=2, label=name,
                )  # fmt: skip
            axis.axhline(100 * np.mean([p.parent_mean for p in mine]), color="black", linewidth=0.8)
            axis.set_xscale("symlog", base=2, linthresh=1)
            axis.set_xticks(keeps := sorted({p.keep for p in mine}), [f"{keep:g}" for keep in keeps])
            axis.minorticks_off()
            title = "as cut" if stage == "pruned" else "after fine-tuning"
            axis.set_title(f"{parent} parent, {title}", fontsize=10)
            axis.set(xlabel="offsets kept a head (k)" if stage == stages[-1] else "")
        axes[0, 0].set_ylabel("test accuracy (%)")
        axes[-1, 0].set_ylabel("test accuracy (%)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=8)


def _cell(value: Any) -> str:
    """A value as text."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
