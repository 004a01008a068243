"""Streamlit pieces that several pages share: headings, pickers, charts that answer clicks, errors in words."""

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import plotly.graph_objects as go
import streamlit as st

from aft_lens.errors import answer, printable, report_defect
from analyses.maps.mosaic import Cell
from analyses.result import Table
from app.loaders import Entry, catalogue, roots

CHART = {"displayModeBar": False, "scrollZoom": False, "doubleClick": False}


def heading(title: str, text: str) -> None:
    """A page's title and one line on what it shows."""
    st.title(title, anchor=False)
    st.caption(text)


def entries_or_stop(weights: str = "") -> dict[str, Entry]:
    """The checkpoints by label, those whose weights are looked at by "attention" or "offset" (AFT-conv) alone if given.

    With none, say what to run and stop.
    """
    listed = catalogue()
    found = {label: entry for label, entry in listed.items() if not entry.problem}
    for entry in listed.values():
        if entry.problem:
            st.warning(plain(f"{entry.path} is left out: {entry.problem}"))
    if not found:
        places = ", ".join(plain(path) for path in roots())
        st.info(
            f"**There are no checkpoints yet** in {places}.\n\nTrain one (about a minute on two cores), then reload:"
        )
        st.code("aft-lens train --recipe digits-single\naft-lens app", language="bash")
        st.stop()
    fitting = {label: entry for label, entry in found.items() if not weights or entry.traits.weights == weights}
    if not fitting:
        kind, recipe = ("a ViT", "digits-vit") if weights == "attention" else ("an AFT-conv", "digits-single")
        st.info(f"None of the {len(found)} checkpoints is {kind}, which this page looks at. Train one:")
        st.code(f"aft-lens train --recipe {recipe}", language="bash")
        st.stop()
    return fitting


def pick(label: str, key: str, entries: dict[str, Entry], prefer: Sequence[str] = ()) -> Entry:
    """A select box over checkpoints, kept in the URL under `key`; starts at the first folder named in `prefer`."""
    labels = list(entries)
    folders = [entry.path.name for entry in entries.values()]
    start = next((folders.index(name) for name in prefer if name in folders), 0)
    chosen = st.selectbox(label, labels, index=start, key=key, bind="query-params")
    entry = entries[chosen or labels[start]]
    st.caption(plain(entry.line))
    return entry


def chart(figure: go.Figure, key: str, description: str, *, width: int | None = None) -> None:
    """Show a figure; `description` is read out by screen readers. `width` is in pixels; None takes the whole column."""
    st.plotly_chart(figure, key=key, theme=None, width=width or "stretch", config=CHART, alt=description)


def show_table(table: Table) -> None:
    """Show a result's table; Streamlit reads cells as Markdown."""
    rows = table.mappings()
    st.table([{plain(name): "–" if cell == "-" else plain(cell) for name, cell in row.items()} for row in rows])


def clickable(
    figure: go.Figure, key: str, description: str, parameter: str = "cell", *, width: int | None = None
) -> None:
    """Show a figure whose clicked cell goes into the URL under `parameter`, to be read with `clicked`.

    `width` is in pixels; None takes the whole column.
    """

    def remember() -> None:
        """Copy a click into the URL; a click that takes a selection back changes nothing."""
        points = st.session_state[key]["selection"]["points"]
        if points and "customdata" in points[0]:
            data = points[0]["customdata"]
            values = [data[str(i)] for i in range(4)] if isinstance(data, dict) else data[:4]
            st.query_params[parameter] = ".".join(str(int(value)) for value in values)

    st.plotly_chart(
        figure,
        key=key,
        theme=None,
        width=width or "stretch",
        config=CHART,
        alt=description,
        on_select=remember,
        selection_mode="points",
    )


def clicked(parameter: str = "cell") -> Cell | None:
    """The cell in the URL (layer.head.y.x); None if there is none or it is no cell."""
    parts = st.query_params.get(parameter, "").split(".")
    try:
        return Cell(*(int(part) for part in parts))
    except (ValueError, TypeError):
        return None


@contextmanager
def in_words() -> Iterator[None]:
    """Show a failure as a sentence; of a defect the traceback is kept beside the server, not shown."""
    try:
        yield
    except Exception as error:  # the last border, as in `analyses.answered.answered`
        words = answer(error)
        if not words:
            words = report_defect(error)
            print(words, file=sys.stderr, flush=True)
            words = "This is a defect of the app, not your input's fault. Whoever runs it finds it in the server's log."
        st.error(plain(words), icon=":material/error:")


def plain(text: object) -> str:
    """Text as it is: what Streamlit would draw as Markdown, a link, an image or an icon stands for itself."""
    escaped = re.sub(r"([\\`*_\[\]<~$&]|:(?=\S)|^\s*[#+>=-])", r"\\\1", printable(str(text)), flags=re.MULTILINE)
    return re.sub(r"(?i)(https?|ftp|mailto|www|xmpp)(?=\\:|\.)", "\\1\u2060", escaped).replace("@", "\u2060@")
