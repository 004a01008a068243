"""The pruning ladder: accuracy, size and latency of a model at every rung."""

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analyses.pruning import PruneLadder, Rung
from analyses import theme

NAMES = {"parent": "dense", "masked": "masked", "indexed": "indexed"}
"""Words for the rungs' names."""


@dataclass(frozen=True)
class Bar:
    """One bar: its height, what is written on it, and how far its error bar goes up and down."""

    value: float
    text: str
    up: float = 0.0
    down: float = 0.0


def ladder(result: PruneLadder, *, height: int = 340) -> go.Figure:
    """Accuracy with its 95 % interval, size on disk, and latency with its standard deviation, a bar a rung."""
    rows = result.rows
    batch = rows[0].latencies[0].batch if rows[0].latencies else None
    latency = f"Latency of {batch} images (ms, mean ± sd)" if batch else "Latency (ms, mean ± sd)"
    panels = [
        (f"Accuracy on {result.images} images (%)", [_accuracy(row) for row in rows]),
        ("Model size (KiB)", [Bar(row.bytes / 1024, f"{row.bytes / 1024:,.0f}") for row in rows]),
        (latency, [_latency(row) for row in rows]),
    ]
    figure = make_subplots(1, 3, subplot_titles=[title for title, _ in panels], horizontal_spacing=0.07)
    colors = [theme.MUTED, theme.SERIES[0], theme.SERIES[1], *theme.SERIES[2:]]
    for column, (_, bars) in enumerate(panels, 1):
        figure.add_trace(
            go.Bar(
                x=[_name(row) for row in rows],
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


def table_rows(rows: Sequence[Rung]) -> list[dict[str, str]]:
    """The rungs as rows of text with their units in the headings."""
    return [
        {
            "model": _name(row),
            "offsets a head": f"{row.keep:.4g}",
            "accuracy (95 % interval)": (
                f"{row.accuracy:.2%} ({row.accuracy_interval[0]:.1%} to {row.accuracy_interval[1]:.1%})"
            ),
            "change (95 % interval)": "" if row.name == "parent" else change(row),
            "max |Δlogit|": f"{row.max_logit_difference:.2g}" if row.name == "indexed" else "",
            "size": f"{row.bytes / 1024:,.1f} KiB",
            "latency": f"{row.latency_mean_ms:.2f} ± {row.latency_sd_ms:.2f} ms",
            "layers": row.form.replace(" x ", " × "),
        }
        for row in rows
    ]


def _name(row: Rung) -> str:
    """A rung in a word."""
    return NAMES.get(row.name, row.name)


def change(row: Rung) -> str:
    """Accuracy less the dense model's on the same images, in points, with its 95 % interval."""
    low, high = row.difference_interval
    return f"{100 * row.difference:+.2f} points ({100 * low:+.2f} to {100 * high:+.2f})"


def _accuracy(row: Rung) -> Bar:
    """Accuracy in percent with its interval."""
    low, high = row.accuracy_interval
    return Bar(
        100 * row.accuracy, f"{row.accuracy:.1%}", up=100 * (high - row.accuracy), down=100 * (row.accuracy - low)
    )


def _latency(row: Rung) -> Bar:
    """Latency with its standard deviation both ways."""
    spread = row.latency_sd_ms
    return Bar(row.latency_mean_ms, f"{row.latency_mean_ms:.1f}", up=spread, down=min(spread, row.latency_mean_ms))
