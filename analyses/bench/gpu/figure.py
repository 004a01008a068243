"""gpu_h100.json as a figure: operators on one grid, time per token over grids, ratios beside what they should be."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import plotly.graph_objects as go
import seaborn as sns
from matplotlib.axes import Axes
from plotly.subplots import make_subplots

from analyses.bench.gpu_record import CONTESTS, PASSES, WORDS, Contest, find, ratios

SIDE = 14
SIDES = (14, 28, 56, 112)
HEADS, WINDOW = 32, 11
CURVES = (("aft_conv", HEADS, WINDOW), ("sdpa", 0, 0), ("linear", 0, 0), ("eq6", HEADS, WINDOW), ("copy", 0, 0))
"""Operator, heads and window of the lines over grids."""
COLOURS = {
    "aft_conv": "#0072b2", "indexed": "#009e73", "sdpa": "#d55e00", "textbook": "#e69f00", "linear": "#cc79a7",
    "eq6": "#6f6f6f", "floor": "#bdbdbd", "copy": "#bdbdbd",
}  # fmt: skip
"""Okabe and Ito's colours, which the colour-blind tell apart, and greys."""
MET, MISSED, REACH = "#009e73", "#d55e00", "#d9f0e3"
TITLES = (
    f"Forward + backward, {SIDE} × {SIDE}, window {WINDOW}",
    f"Time per token; AFT-conv {WINDOW}, {HEADS} heads",
    "Ratios; shaded: where they should be",
)
RANGE = (0.1, 4.0)
"""Ratios that the right panel shows at least."""


def draw(record: Mapping[str, Any], out: Path, name: str) -> list[Path]:
    """Write NAME.png, .svg and .html into `out`; panels without measured rows stay empty. Returns the files."""
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"{name}.{kind}" for kind in ("png", "svg", "html")]
    with (
        sns.plotting_context("paper"),
        sns.axes_style("whitegrid"),
        plt.rc_context({"svg.hashsalt": name, "axes.edgecolor": "#888888", "grid.color": "#e6e6e6"}),
    ):
        figure, axes = plt.subplots(
            1, 3, figsize=(15, 6.8), layout="constrained", gridspec_kw={"width_ratios": [0.95, 1.1, 1.1]}
        )
        _draw_bars(axes[0], bars(record["operators"]))
        _draw_curves(axes[1], record["operators"])
        _draw_ratios(axes[2], record)
        figure.suptitle(f"{record['hardware']}, bfloat16, d = 384", fontsize=12)
        figure.savefig(paths[0], dpi=140)
        figure.savefig(paths[1], metadata={"Date": None})
        plt.close(figure)
    page(record).write_html(paths[2], include_plotlyjs=True)
    return paths


def bars(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, float]]:
    """Operator, label and forward + backward time (µs) of every operator on 14 x 14, the quickest first."""
    found = []
    for row in rows:
        if row["grid"] == [SIDE, SIDE] and row["window"] in (0, WINDOW) and "train_us" in row:
            heads = f", {row['heads']} heads" if row["heads"] else ""
            found.append((row["operator"], f"{_words(row['operator'])}{heads}", row["train_us"]["median"]))
    return sorted(found, key=lambda bar: bar[2])


def curve(
    rows: Sequence[Mapping[str, Any]], operator: str, heads: int, window: int, column: str
) -> tuple[list[int], list[float]]:
    """Sides of the grids that an operator was measured on, and its nanoseconds a token there."""
    sides, times = [], []
    for side in SIDES:
        row = find(rows, operator, side, heads, window)
        if row is not None and column in row:
            sides.append(side)
            times.append(row[column]["median"] * 1e3 / (row["batch"] * math.prod(row["grid"])))
    return sides, times


def dots(record: Mapping[str, Any]) -> list[tuple[Contest, float]]:
    """Every measured ratio."""
    found = ratios(record["operators"], record["models"])
    return [(contest, found[contest.key]) for contest in CONTESTS if contest.key in found]


def _words(operator: str) -> str:
    return WORDS.get(operator, operator)


def _two_lines(contest: Contest, end: str) -> str:
    """What is compared above the pass."""
    return end.join(contest.words.rsplit(", ", 1))


def _draw_bars(axis: Axes, found: Sequence[tuple[str, str, float]]) -> None:
    axis.set_title(TITLES[0])
    if found:
        colours = [COLOURS.get(operator, "#7f7f7f") for operator, _, _ in found]
        times = [time for _, _, time in found]
        drawn = axis.barh([label for _, label, _ in found], times, color=colours, height=0.72)
        axis.bar_label(drawn, [f"{time:,.0f}" for time in times], padding=3, fontsize=8)
        axis.set_xscale("log")
        axis.set_xlim(min(times) / 2, max(times) * 4)
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.set_xlabel("µs (log scale)")


def _draw_curves(axis: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    axis.set_title(TITLES[1])
    for operator, heads, window in CURVES:
        for column, dash in zip(PASSES, ("--", "-"), strict=True):
            sides, times = curve(rows, operator, heads, window, column)
            if sides:
                label = _words(operator) if column == "train_us" or operator == "copy" else None
                axis.loglog(sides, times, dash, marker="o", ms=4, color=COLOURS[operator], label=label)
    axis.set_xticks(SIDES, [f"{side} × {side}" for side in SIDES])
    axis.minorticks_off()
    axis.set(xlabel="grid (T = 196 to 12,544)", ylabel="ns per token (log scale)")
    handles, labels = axis.get_legend_handles_labels()
    for words, dash in zip(PASSES.values(), ("--", "-"), strict=True):
        handles.append(plt.Line2D([], [], color="#444444", ls=dash))
        labels.append(words)
    low, high = axis.get_ylim()
    axis.set_ylim(low, high * 3)  # room for the legend
    axis.legend(handles, labels, fontsize=7.5, loc="upper center", ncols=2, columnspacing=1.2, handlelength=1.8)


def _limits(found: Sequence[tuple[Contest, float]]) -> tuple[float, float]:
    """Ends of the ratios' axis."""
    measured = [ratio for _, ratio in found]
    return min([RANGE[0], *(ratio / 1.2 for ratio in measured)]), max([RANGE[1], *(ratio * 1.2 for ratio in measured)])


def _reach(contest: Contest, low: float, high: float) -> tuple[float, float]:
    """From where to where a ratio should be."""
    return (contest.least, high) if contest.larger_is_better else (low, contest.least)


def _colour(contest: Contest, ratio: float) -> str:
    return MET if contest.met(ratio) else MISSED


def _draw_ratios(axis: Axes, record: Mapping[str, Any]) -> None:
    axis.set_title(TITLES[2])
    axis.set_xscale("log", base=2)
    found = dots(record)
    low, high = _limits(found)
    for place, (contest, ratio) in enumerate(found):
        start, end = _reach(contest, low, high)
        colour = _colour(contest, ratio)
        axis.barh(place, end - start, left=start, height=0.8, color=REACH, zorder=1)
        axis.plot([contest.least] * 2, [place - 0.4, place + 0.4], color=MET, lw=1.5, zorder=2)
        axis.plot(ratio, place, "o", ms=8, mec="white", color=colour, zorder=4)
        axis.annotate(
            f"{ratio:.2f}", (1, place), xycoords=("axes fraction", "data"), xytext=(6, 0),
            textcoords="offset points", va="center", fontsize=8, color=colour,
        )  # fmt: skip
    ticks = [tick for tick in (0.125, 0.25, 0.5, 1, 2, 4, 8) if low <= tick <= high]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_xlim(low, high)
    axis.set_yticks(range(len(found)), [_two_lines(contest, "\n") for contest, _ in found], fontsize=7.5)
    axis.set_ylim(max(len(found), 1) - 0.5, -0.5)
    axis.grid(axis="y", visible=False)
    axis.set_xlabel("ours over theirs (log scale)")
    for words, colour in (("met", MET), ("missed", MISSED)):
        axis.plot([], [], "o", ms=7, color=colour, label=words)
    axis.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 0.12))  # beside those that should be large


def page(record: Mapping[str, Any]) -> go.Figure:
    """The same panels with the values under the pointer."""
    figure = make_subplots(1, 3, subplot_titles=TITLES, column_widths=[0.3, 0.35, 0.35], horizontal_spacing=0.16)
    found = bars(record["operators"])
    figure.add_trace(
        go.Bar(
            x=[time for _, _, time in found], y=[label for _, label, _ in found], orientation="h", showlegend=False,
            marker_color=[COLOURS.get(operator, "#7f7f7f") for operator, _, _ in found],
            hovertemplate="%{y}: %{x:,.1f} µs<extra></extra>",
        ), 1, 1,
    )  # fmt: skip
    for operator, heads, window in CURVES:
        for (column, words), dash in zip(PASSES.items(), ("dash", "solid"), strict=True):
            sides, times = curve(record["operators"], operator, heads, window, column)
            trace = go.Scatter(
                x=sides, y=times, mode="lines+markers", name=f"{_words(operator)}, {words}",
                line={"color": COLOURS[operator], "dash": dash},
                hovertemplate="%{x} × %{x}: %{y:.2f} ns a token",
            )  # fmt: skip
            if sides:
                figure.add_trace(trace, 1, 2)
    measured = dots(record)
    low, high = _limits(measured)
    figure.add_trace(
        go.Scatter(
            x=[ratio for _, ratio in measured], y=[_two_lines(contest, "<br>") for contest, _ in measured],
            mode="markers", showlegend=False, marker={"size": 11, "color": [_colour(*dot) for dot in measured]},
            customdata=[("≥" if contest.larger_is_better else "≤") + f" {contest.least:g}" for contest, _ in measured],
            hovertemplate="%{y}: %{x:.3f}, asked for %{customdata}<extra></extra>",
        ), 1, 3,
    )  # fmt: skip
    for place, (contest, _) in enumerate(measured):
        start, end = _reach(contest, low, high)
        figure.add_shape(
            type="rect", x0=start, x1=end, y0=place - 0.4, y1=place + 0.4, layer="below", line_width=0,
            fillcolor=REACH, row=1, col=3,
        )  # fmt: skip
    figure.update_xaxes(type="log", dtick=1, title="µs", row=1, col=1)
    figure.update_xaxes(type="log", title="side of the grid", tickvals=SIDES, row=1, col=2)
    figure.update_xaxes(type="log", title="ours over theirs", range=[math.log10(low), math.log10(high)], row=1, col=3)
    figure.update_yaxes(autorange="reversed", row=1, col=1)
    figure.update_yaxes(autorange="reversed", tickfont_size=9, row=1, col=3)
    figure.update_yaxes(type="log", dtick=1, title="ns per token", row=1, col=2)
    figure.update_layout(
        title=f"{record['hardware']}, bfloat16, d = 384", width=1700, height=760, template="plotly_white",
        legend={"orientation": "h", "y": -0.1},
    )  # fmt: skip
    return figure
