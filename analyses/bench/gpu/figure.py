"""gpu_h100.json as a figure: operators on one grid, time per token over grids, ratios beside what they should be."""

import math
from collections.abc import Sequence

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from analyses.bench.gpu.comparisons import COMPARISONS, Comparison, ratios
from analyses.bench.gpu.record import PASSES, WORDS, GPURecord, OperatorRow, find

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


def draw(figure: Figure | SubFigure, measured: GPURecord) -> None:
    """Draw the three panels; those without measured rows stay empty."""
    greys = {"axes.edgecolor": "#888888", "grid.color": "#e6e6e6"}
    with sns.plotting_context("paper"), sns.axes_style("whitegrid", greys):
        axes = figure.subplots(1, 3, width_ratios=[0.95, 1.1, 1.1])
        _draw_bars(axes[0], bars(measured.operators))
        _draw_curves(axes[1], measured.operators)
        _draw_ratios(axes[2], measured)
        figure.suptitle(title(measured), fontsize=12)


def title(measured: GPURecord) -> str:
    """What everything was measured on."""
    return f"{measured.hardware}, bfloat16, d = 384"


def bars(rows: Sequence[OperatorRow]) -> list[tuple[str, str, float]]:
    """Operator, label and forward + backward time (µs) of every operator on 14 x 14, the quickest first."""
    found = []
    for row in rows:
        if row.grid == (SIDE, SIDE) and row.window in (0, WINDOW) and row.train_us is not None:
            heads = f", {row.heads} heads" if row.heads else ""
            found.append((row.operator, f"{words_of(row.operator)}{heads}", row.train_us.median))
    return sorted(found, key=lambda bar: bar[2])


def curve(
    rows: Sequence[OperatorRow], operator: str, heads: int, window: int, column: str
) -> tuple[list[int], list[float]]:
    """Sides of the grids that an operator was measured on, and its nanoseconds a token there."""
    sides, times = [], []
    for side in SIDES:
        row = find(rows, operator, side, heads, window)
        time = None if row is None else row.time(column)
        if row is not None and time is not None:
            sides.append(side)
            times.append(time.median * 1e3 / (row.batch * math.prod(row.grid)))
    return sides, times


def dots(measured: GPURecord) -> list[tuple[Comparison, float]]:
    """Every measured ratio."""
    found = ratios(measured)
    return [(comparison, found[comparison.key]) for comparison in COMPARISONS if comparison.key in found]


def words_of(operator: str) -> str:
    """What an operator is called."""
    return WORDS.get(operator, operator)


def two_lines(comparison: Comparison, end: str) -> str:
    """What is compared above the pass."""
    return end.join(comparison.words.rsplit(", ", 1))


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


def _draw_curves(axis: Axes, rows: Sequence[OperatorRow]) -> None:
    axis.set_title(TITLES[1])
    for operator, heads, window in CURVES:
        for column, dash in zip(PASSES, ("--", "-"), strict=True):
            sides, times = curve(rows, operator, heads, window, column)
            if sides:
                label = words_of(operator) if column == "train_us" or operator == "copy" else None
                axis.loglog(sides, times, dash, marker="o", ms=4, color=COLOURS[operator], label=label)
    axis.set_xticks(SIDES, [f"{side} × {side}" for side in SIDES])
    axis.minorticks_off()
    axis.set(xlabel="grid (T = 196 to 12,544)", ylabel="ns per token (log scale)")
    handles, labels = axis.get_legend_handles_labels()
    for words, dash in zip(PASSES.values(), ("--", "-"), strict=True):
        handles.append(Line2D([], [], color="#444444", ls=dash))
        labels.append(words)
    low, high = axis.get_ylim()
    axis.set_ylim(low, high * 3)  # room for the legend
    axis.legend(handles, labels, fontsize=7.5, loc="upper center", ncols=2, columnspacing=1.2, handlelength=1.8)


def ratio_ends(found: Sequence[tuple[Comparison, float]]) -> tuple[float, float]:
    """Ends of the ratios' axis."""
    measured = [ratio for _, ratio in found]
    return min([RANGE[0], *(ratio / 1.2 for ratio in measured)]), max([RANGE[1], *(ratio * 1.2 for ratio in measured)])


def reach(comparison: Comparison, low: float, high: float) -> tuple[float, float]:
    """From where to where a ratio should be."""
    return (comparison.least, high) if comparison.larger_is_better else (low, comparison.least)


def colour_of(comparison: Comparison, ratio: float) -> str:
    """Green where the ratio is met."""
    return MET if comparison.met(ratio) else MISSED


def _draw_ratios(axis: Axes, measured: GPURecord) -> None:
    axis.set_title(TITLES[2])
    axis.set_xscale("log", base=2)
    found = dots(measured)
    low, high = ratio_ends(found)
    for place, (comparison, ratio) in enumerate(found):
        start, end = reach(comparison, low, high)
        colour = colour_of(comparison, ratio)
        axis.barh(place, end - start, left=start, height=0.8, color=REACH, zorder=1)
        axis.plot([comparison.least] * 2, [place - 0.4, place + 0.4], color=MET, lw=1.5, zorder=2)
        axis.plot(ratio, place, "o", ms=8, mec="white", color=colour, zorder=4)
        axis.annotate(
            f"{ratio:.2f}", (1, place), xycoords=("axes fraction", "data"), xytext=(6, 0),
            textcoords="offset points", va="center", fontsize=8, color=colour,
        )  # fmt: skip
    ticks = [tick for tick in (0.125, 0.25, 0.5, 1, 2, 4, 8) if low <= tick <= high]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_xlim(low, high)
    axis.set_yticks(range(len(found)), [two_lines(comparison, "\n") for comparison, _ in found], fontsize=7.5)
    axis.set_ylim(max(len(found), 1) - 0.5, -0.5)
    axis.grid(axis="y", visible=False)
    axis.set_xlabel("ours over theirs (log scale)")
    for words, colour in (("met", MET), ("missed", MISSED)):
        axis.plot([], [], "o", ms=7, color=colour, label=words)
    axis.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 0.12))  # beside those that should be large
