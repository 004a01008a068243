"""Maps to take along: what is shown as files, and for each model the command and the Python that make it."""

import csv
import io
import json
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import streamlit as st

from analyses.maps.head_maps import shared_bound
from app import canvas, loaders, state, waiting
from app.canvas import Pane
from app.words import in_words, plain
from app.workspace import Workspace

Source = tuple[str, str, dict[str, Any]]
"""A model's label, and the kind and arguments of the job that draws its maps by the command."""


def maps(panes: Sequence[Pane], sources: Sequence[Source], key: str, *, pick: str = "cell") -> None:
    """An expander below maps: HTML, JSON and CSV of what is shown, and for each model how it is made."""
    space = state.current()
    with st.expander("Take these maps along"):
        st.caption("As they are shown, in this order and scale; PNG and SVG are below each model's maps.")
        with st.container(horizontal=True):
            for kind, (words, made, mime) in _FILES.items():
                st.download_button(
                    kind, data=partial(made, panes, space, pick), file_name=f"{key}.{kind.lower()}", mime=mime,
                    key=f"{key} {kind}", on_click="ignore", help=words,
                )  # fmt: skip
        for number, (label, kind, arguments) in enumerate(sources):
            with in_words():
                st.caption(plain(f"{label}: all its heads, by the command"))
                waiting.show_lines(*loaders.lines(kind, arguments))
                waiting.awaited(
                    kind, f"Drawing {label}", arguments, lambda content, whole: None, button="Draw its files",
                    help="PNG, SVG, HTML and JSON, as the command writes them.", key=f"{key} {kind} {number}",
                )  # fmt: skip


def as_page(panes: Sequence[Pane], space: Workspace, pick: str = "cell") -> str:
    """The maps as they are on the page, in a file that answers clicks."""
    place = space["target" if pick == "target" else "offset" if panes[0].maps.by_offset else "place"]
    y, x = place if isinstance(place, tuple) else (0, 0)
    cell = {"side": 0, "layer": space["layer"], "head": space["head"], "y": y, "x": x}
    bound = shared_bound(*(pane.maps for pane in panes))
    return canvas.whole_page(panes, cell, scale=space["scale"], bound=bound)


def as_json(panes: Sequence[Pane], space: Workspace, pick: str = "") -> str:
    """Values by layer and head, null where there are none."""
    found = [
        {
            "model": pane.title, "unit": pane.maps.unit, "by_offset": pane.maps.by_offset,
            "maps": [{"layer": layer, pane.maps.column: head, "values": _plain(pane.maps.values[layer, head])}
                     for layer, head in pane.tiles],
        }
        for pane in panes
    ]  # fmt: skip
    return json.dumps({"address": space.address(), "models": found})


def as_csv(panes: Sequence[Pane], space: Workspace, pick: str = "") -> str:
    """A row a cell; y and x are offsets, or positions of the grid."""
    buffer = io.StringIO()
    out = csv.writer(buffer, lineterminator="\n")
    out.writerow(["model", "layer", "head", "y", "x", "value", "unit"])
    for pane in panes:
        for layer, head in pane.tiles:
            for (row, column), value in np.ndenumerate(pane.maps.values[layer, head]):
                if np.isfinite(value):
                    y, x = pane.maps.coordinates(row, column)
                    out.writerow([pane.title, layer, head, y, x, f"{value:.6g}", pane.maps.unit])
    return buffer.getvalue()


def _plain(values: np.ndarray) -> list[list[float | None]]:
    return [[float(f"{value:.6g}") if np.isfinite(value) else None for value in row] for row in values]


_FILES: dict[str, tuple[str, Any, str]] = {
    "HTML": ("A page that answers clicks as this one does, and needs nothing beside it.", as_page, "text/html"),
    "JSON": ("Values by layer and head.", as_json, "application/json"),
    "CSV": ("A row for each cell.", as_csv, "text/csv"),
}
"""By suffix: what it is, how it is made, and its type."""
