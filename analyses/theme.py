"""Colours, fonts and layout that every Plotly figure shares, in pages, reports and the app."""

import textwrap
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

FONT = "Source Sans, Source Sans Pro, Segoe UI, Helvetica, Arial, sans-serif"
INK, MUTED, GRID, PAPER = "#1f2933", "#66727f", "#e4e7eb", "#ffffff"
SERIES = ("#2f6db3", "#d1603d", "#3a8f6b", "#8a5fb0", "#b8892b", "#4b5c6b")
"""Line and bar colours, told apart by colour-blind readers too."""
DIVERGING = (
    (0.0, "#123f73"),
    (0.2, "#3e7fb8"),
    (0.4, "#b9d3e6"),
    (0.5, "#f6f6f4"),
    (0.6, "#f3cbb2"),
    (0.8, "#d2603f"),
    (1.0, "#8c1423"),
)
"""Blue below zero, near white at zero, red above: zero is always the middle of the range."""
RISING = tuple((2 * place - 1, color) for place, color in DIVERGING if place >= 0.5)
"""For values that are never negative: near white at zero, red above."""
GAP = "#ffffff"
"""Between the tiles of a mosaic, and where a model has no value."""


def layout(figure: go.Figure, *, title: str | None = None, height: int, **extra: Any) -> go.Figure:
    """Give a figure the shared fonts, margins and background; returns the same figure."""
    figure.update_layout(
        title={"text": title, "x": 0.0, "xanchor": "left", "font": {"size": 15, "color": INK}} if title else None,
        height=height,
        font={"family": FONT, "size": 13, "color": INK},
        paper_bgcolor=PAPER,
        plot_bgcolor=PAPER,
        margin={"l": 60, "r": 16, "t": 44 if title else 16, "b": 44},
        hoverlabel={"font": {"family": FONT, "size": 13}, "bgcolor": PAPER},
        dragmode=False,
    )
    figure.update_layout(**extra)
    return figure


def axes(figure: go.Figure, **extra: Any) -> go.Figure:
    """Light grid lines and muted ticks on every axis of a line or bar figure; returns the same figure."""
    style = {"gridcolor": GRID, "zerolinecolor": GRID, "linecolor": GRID, "tickfont": {"color": MUTED}}
    figure.update_xaxes(**style, **extra)
    figure.update_yaxes(**style, **extra)
    return figure


def colorbar(title: str, *, ticks: tuple[list[float], list[str]] | None = None) -> dict[str, Any]:
    """A thin vertical colour bar with its unit beside it."""
    bar: dict[str, Any] = {
        "title": {"text": title, "side": "right", "font": {"size": 12, "color": MUTED}},
        "thickness": 10,
        "lenmode": "pixels",
        "len": 140,
        "y": 1,
        "yanchor": "top",
        "outlinewidth": 0,
        "tickfont": {"size": 11, "color": MUTED},
        "xpad": 6,
    }
    if ticks is not None:
        bar |= {"tickmode": "array", "tickvals": ticks[0], "ticktext": ticks[1]}
    return bar


def headed(figure: go.Figure, title: str, lines: Sequence[str], width: int, height: int) -> go.Figure:
    """A title with smaller lines below it, e.g. the command that made the figure, and room for them above the panels.

    Long lines are broken to the `width`; `height` is that of the panels (both in pixels). Returns the same figure.
    """
    small = [part for line in lines for part in textwrap.wrap(line, max(40, width // 7))]
    top = 50 + 22 * (title.count("<br>") + len(small) + 1)
    text = title + "".join(f"<br><sub>{part}</sub>" for part in small)
    figure.update_layout(
        title={"text": text, "y": 1, "yref": "container", "yanchor": "top", "pad": {"t": 18}, "font_size": 15},
        width=width, height=height + top, margin_t=top,
    )  # fmt: skip
    return figure
