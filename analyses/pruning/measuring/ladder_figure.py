"""Accuracy, size and latency of a model at every rung, printed and interactive."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import plotly.graph_objects as go
from matplotlib.figure import Figure, SubFigure
from plotly.subplots import make_subplots

from aft_lens.later import later
from analyses import theme
from analyses.pruning.measuring.rung import Rung

if TYPE_CHECKING:
    import seaborn as sns
else:
    sns = later("seaborn")


@dataclass(frozen=True)
class Bar:
    """One bar: its height, what is written on it, and how far its error bar goes up and down."""

    value: float
    text: str
    up: float = 0.0
    down: float = 0.0


def panels(rows: Sequence[Rung], images: int) -> list[tuple[str, list[Bar]]]:
    """Accuracy with its 95 % interval, size on disk, and latency with its quartiles: a title and its bars."""
    batch = rows[0].latencies[0].batch if rows[0].latencies else None
    latency = f"Latency of {batch} images (ms, quartiles)" if batch else "Latency (ms)"
    return [
        (f"Accuracy on {images} images (%)", [_accuracy(row) for row in rows]),
        ("Model size (kB)", [Bar(row.bytes / 1e3, f"{row.bytes / 1e3:,.0f}") for row in rows]),
        (latency, [_latency(row) for row in rows]),
    ]


def draw(figure: Figure | SubFigure, rows: Sequence[Rung], images: int) -> None:
    """Three panels, a bar a rung."""
    with sns.axes_style("whitegrid"):
        axes = figure.subplots(1, 3)
    place, names = range(len(rows)), [row.name for row in rows]
    for axis, (title, bars) in zip(axes, panels(rows, images), strict=True):
        axis.bar(place, [bar.value for bar in bars], color=sns.color_palette("deep", len(rows)))
        if any(bar.up or bar.down for bar in bars):
            spread = [[bar.down for bar in bars], [bar.up for bar in bars]]
            axis.errorbar(place, [bar.value for bar in bars], yerr=spread, fmt="none", ecolor="black")
        axis.set_xticks(place, names, rotation=30, ha="right")
        axis.set_title(title, fontsize=10)


def interactive(rows: Sequence[Rung], images: int, *, height: int = 340) -> go.Figure:
    """The same panels with values on the bars and under the pointer."""
    found = panels(rows, images)
    figure = make_subplots(1, 3, subplot_titles=[title for title, _ in found], horizontal_spacing=0.07)
    colors = [theme.MUTED, theme.SERIES[0], theme.SERIES[1], *theme.SERIES[2:]]
    for column, (_, bars) in enumerate(found, 1):
        figure.add_trace(
            go.Bar(
                x=[row.name for row in rows],
                y=[bar.value for bar in bars],
                text=[bar.text for bar in bars],
                textposition="inside",
                insidetextanchor="middle",
                insidetextfont={"color": "white", "size": 15},
                marker={"color": [colors[i % len(colors)] for i in range(len(rows))]},
                error_y={
                    "type": "data",
                    "array": [bar.up for bar in bars],
                    "arrayminus": [bar.down for bar in bars],
                    "visible": any(bar.up or bar.down for bar in bars),
                    "color": theme.INK,
                    "thickness": 1.5,
                    "width": 6,
                },
                hovertemplate="%{x}: %{y:.4g}<extra></extra>",
                showlegend=False,
            ),
            row=1,
            col=column,
        )
        figure.update_yaxes(range=[0, 1.12 * max(bar.value + bar.up for bar in bars) or 1], row=1, col=column)
    theme.layout(theme.axes(figure), height=height, bargap=0.35, margin={"l": 44, "r": 10, "t": 44, "b": 36})
    figure.update_xaxes(showgrid=False, tickangle=0, tickfont={"color": theme.INK, "size": 13})
    figure.update_annotations(font={"size": 14, "color": theme.INK})
    return figure


def _accuracy(row: Rung) -> Bar:
    """Accuracy in percent with its interval."""
    low, high = row.accuracy_interval
    return Bar(
        100 * row.accuracy, f"{row.accuracy:.1%}", up=100 * (high - row.accuracy), down=100 * (row.accuracy - low)
    )


def _latency(row: Rung) -> Bar:
    """Median latency with its quartiles; NaN where nothing was timed."""
    taken = row.latency
    if taken is None:
        return Bar(math.nan, "")
    low, high = (taken.median_ms if end is None else end for end in (taken.low_ms, taken.high_ms))
    return Bar(taken.median_ms, f"{taken.median_ms:.1f}", up=high - taken.median_ms, down=taken.median_ms - low)
