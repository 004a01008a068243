"""Tables and Plotly figures on pages, in the page's colours; Plotly is imported when the first one is drawn."""

import json
import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from app.words import plain

if TYPE_CHECKING:
    import plotly.graph_objects as go

PLACEHOLDER = re.compile('"#0000(0[1-9]|1[0-9])"')
"""Colours that Streamlit takes for places of its own palette; Magma starts with one."""
WIDE = 700
"""Pixels below which no figure is squeezed that has panels side by side."""
CHART = {"displayModeBar": False, "scrollZoom": False, "doubleClick": False}


def is_dark() -> bool:
    """Whether the visitor's theme is dark."""
    return st.context.theme.type == "dark"


def chart(figure: "go.Figure | str", key: str, description: str, *, width: int | None = None) -> None:
    """Show a figure, or the JSON of one; `description` is read out by screen readers.

    `width` is in pixels; None takes the whole column, where a figure of several panels is scrolled rather than
    squeezed.
    """
    graph = import_module("plotly.graph_objects")
    if isinstance(figure, str):
        figure = graph.Figure(json.loads(PLACEHOLDER.sub(r'"rgb(0,0,\1)"', figure)), skip_invalid=True)
    panels = {axis.domain[:1] for axis in figure.select_xaxes() if axis.domain}
    wide = width is None and (len(panels) > 1 or (figure.layout.width or 0) > WIDE)
    with st.container(key=f"wide {key}" if wide else None):
        st.plotly_chart(themed(figure), key=key, theme=None, width=width or "stretch", config=CHART, alt=description)


def themed(figure: "go.Figure") -> "go.Figure":
    """A figure without a background of its own, its words and lines to be read on the page's."""
    ink, muted, grid = ("#e8ecf0", "#9aa5b1", "#3a424b") if is_dark() else ("#1f2933", "#66727f", "#e4e7eb")
    figure.update_layout(
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", font_color=ink, width=None, autosize=True,
        hoverlabel={"bgcolor": "#20252b" if is_dark() else "#ffffff"}, title_font_color=ink,
    )  # fmt: skip
    axis = {"gridcolor": grid, "zerolinecolor": muted, "linecolor": grid, "tickfont": {"color": muted}}
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    figure.update_annotations(font_color=ink)
    return figure


def show_table(table: Mapping[str, Any]) -> None:
    """Show a result's table with its words; Streamlit reads cells as Markdown."""
    if table.get("title"):
        st.caption(plain(table["title"]))
    rows = [dict(zip(map(plain, table["columns"]), map(_cell, row), strict=True)) for row in table["rows"]]
    if rows:
        st.table(rows)
    note = table.get("note", "")
    if "  " in note.strip():  # columns
        st.code(note, language=None)
    elif note:
        st.text(note)


def _cell(value: str) -> str:
    return "–" if value in ("-", "") else plain(value)


def drawn(content: Mapping[str, Any], key: str, description: str) -> None:
    """A job's figure and table."""
    chart(content["figure"], f"{key} figure", description)
    show_table(content["table"])


def heat(values: np.ndarray, limit: float, key: str, description: str, *, height: int) -> None:
    """A map with zero in the middle of its colours."""
    graph, theme = import_module("plotly.graph_objects"), import_module("analyses.theme")
    figure = graph.Figure(
        graph.Heatmap(z=values, zmin=-limit, zmax=limit, colorscale=theme.DIVERGING, colorbar={"thickness": 10})
    )
    theme.layout(figure, height=height, margin={"l": 8, "r": 8, "t": 8, "b": 8})
    figure.update_xaxes(visible=False, constrain="domain")
    figure.update_yaxes(visible=False, autorange="reversed", scaleanchor="x")
    chart(figure, key, description, width=int(height * 1.3))


def heats(maps: np.ndarray, titles: Sequence[str], key: str, description: str) -> None:
    """Maps beside each other on one scale, with zero in the middle."""
    theme, subplots = import_module("analyses.theme"), import_module("plotly.subplots")
    graph = import_module("plotly.graph_objects")
    columns = min(10, len(maps))
    lines = -(-len(maps) // columns)
    figure = subplots.make_subplots(lines, columns, subplot_titles=list(titles)[: len(maps)], horizontal_spacing=0.01)
    limit = float(np.abs(maps).max()) or 1.0
    for number, values in enumerate(maps):
        trace = graph.Heatmap(z=values, zmin=-limit, zmax=limit, colorscale=theme.DIVERGING, showscale=number == 0)
        figure.add_trace(trace, row=number // columns + 1, col=number % columns + 1)
    theme.layout(figure, height=30 + 130 * lines, margin={"l": 4, "r": 4, "t": 28, "b": 4})
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False, autorange="reversed")
    chart(figure, key, description)


def scatter(
    places: np.ndarray, labels: np.ndarray, classes: Sequence[str], wrong: np.ndarray, key: str, description: str
) -> None:
    """Images in the plane by class; crosses are wrong predictions."""
    graph, theme = import_module("plotly.graph_objects"), import_module("analyses.theme")
    figure = graph.Figure()
    for number in sorted(set(labels.tolist())):
        mine = np.flatnonzero(labels == number)
        name = classes[number] if 0 <= number < len(classes) else "no class"
        figure.add_trace(
            graph.Scattergl(
                x=places[mine, 0], y=places[mine, 1], mode="markers", name=name, customdata=mine,
                marker={"size": 6, "symbol": ["x" if wrong[one] else "circle" for one in mine]},
                hovertemplate="image %{customdata}<extra>" + name + "</extra>",
            )
        )  # fmt: skip
    theme.layout(theme.axes(figure), height=380)
    chart(figure, key, description)


def kept_offsets(offsets: Sequence[Any], key: str) -> None:
    """Where the offsets that a pruned model keeps lie, a panel a layer."""
    figure = import_module("app.views.offsets").kept_offsets(offsets)
    st.caption(
        "Where the kept offsets are: Δx to the right, Δy down, in patches; a larger dot is kept by more heads of its "
        "layer, blue is the position itself."
    )
    chart(figure, key, "Kept offsets by layer")


def training_view() -> Any:
    """The module that draws curves of runs."""
    return import_module("app.views.training")
