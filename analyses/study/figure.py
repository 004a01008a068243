"""The verdicts as a figure: each claim's difference with its interval, and where it holds, by matplotlib and Plotly."""

from collections.abc import Sequence

import plotly.graph_objects as go
from matplotlib.figure import Figure, SubFigure

from analyses.study.configurations import FAMILIES
from analyses.study.tables import UNITS
from analyses.study.verdicts import FAILS, HOLDS, OPEN, Verdict
from analyses.theme import axes, layout

COLOURS = {HOLDS: "#009e73", FAILS: "#d55e00", OPEN: "#8a8a8a"}
"""Okabe and Ito's green and red, and grey."""
REACH = "#d9f0e3"
LINEAR = 1.0
"""Differences up to this are drawn to scale, larger ones by their logarithm."""
TICKS = (-30, -10, -3, -1, 0, 1, 3, 10, 30)


def draw(figure: Figure | SubFigure, verdicts: Sequence[Verdict]) -> None:
    """A claim a row; where a claim holds is shaded."""
    axis = figure.subplots()
    axis.set_xscale("symlog", linthresh=LINEAR)
    ends = [end for verdict in verdicts for end in (*verdict.interval, verdict.claim.bound)]
    low, high = min(ends, default=-1.0) * 1.1 - 0.1, max(ends, default=1.0) * 1.1 + 0.1
    for place, verdict in enumerate(verdicts):
        start, end = _holds(verdict, high)
        colour = COLOURS[verdict.verdict]
        axis.barh(place, end - start, left=start, height=0.8, color=REACH, zorder=0)
        axis.plot(verdict.interval, [place] * 2, color=colour, lw=1.8, zorder=2)
        axis.plot(verdict.difference, place, "o", color=colour, ms=5, zorder=3)
    for words, colour in COLOURS.items():
        axis.plot([], [], "o-", color=colour, label=words)
    axis.axvline(0, color="#888888", lw=0.8, zorder=1)
    axis.set_yticks(range(len(verdicts)), [_words(verdict) for verdict in verdicts], fontsize=7.5)
    axis.set_ylim(max(len(verdicts), 1) - 0.5, -0.5)
    axis.set_xlim(low, high)
    ticks = [tick for tick in TICKS if low <= tick <= high]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.set_xlabel("difference and 95 % interval; shaded: the claim holds")
    axis.legend(fontsize=7.5, loc="lower left")


def page(verdicts: Sequence[Verdict]) -> go.Figure:
    """The same with the values under the pointer, on a linear axis."""
    figure = go.Figure()
    for words, colour in COLOURS.items():
        found = [verdict for verdict in verdicts if verdict.verdict == words]
        figure.add_trace(
            go.Scatter(
                x=[verdict.difference for verdict in found], y=[_words(verdict) for verdict in found], name=words,
                mode="markers", marker={"color": colour, "size": 9},
                error_x={"array": [verdict.interval[1] - verdict.difference for verdict in found], "color": colour},
                customdata=[verdict.interval for verdict in found],
                hovertemplate="%{y}: %{x:+.2f} [%{customdata[0]:+.2f}, %{customdata[1]:+.2f}]",
            )
        )  # fmt: skip
    order = [_words(verdict) for verdict in verdicts]
    figure.update_yaxes(categoryorder="array", categoryarray=order, autorange="reversed", tickfont_size=10)
    figure.update_xaxes(title="difference and 95 % interval")
    return layout(axes(figure), height=120 + 28 * len(verdicts))


def _words(verdict: Verdict) -> str:
    return f"{verdict.claim.words}, {FAMILIES[verdict.family].words}, {UNITS[verdict.claim.metric]}"


def _holds(verdict: Verdict, high: float) -> tuple[float, float]:
    """From where to where the whole interval must lie."""
    bound = verdict.claim.bound
    return (bound, high) if verdict.claim.kind == "above" else (-bound, bound)
