"""One self-contained HTML page from tables and figures: it opens without a network."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from aft_lens.files import write_whole
from analyses import theme
from analyses.result import Table

CONFIG = {"displayModeBar": False, "responsive": True}
TEMPLATES = Environment(
    loader=PackageLoader("analyses"), autoescape=True, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
)


@dataclass(frozen=True)
class Section:
    """A heading, a paragraph, a table and figures, each of which may be left out."""

    title: str
    text: str = ""
    table: Table | None = None
    figures: Sequence[tuple[str, go.Figure]] = ()
    """(caption, figure), laid side by side where there is room."""
    note: str = ""


def write_page(path: Path, title: str, text: str, sections: Sequence[Section], footer: str = "") -> Path:
    """Write the page with Plotly's script inside it (about 5 MB) and return its path; every text is escaped."""
    page = TEMPLATES.get_template("page.html").render(
        title=title, text=text, sections=sections, footer=footer, theme=theme, script=Markup(get_plotlyjs()), plot=_plot
    )
    return write_whole(path, page)


def _plot(figure: go.Figure, name: str) -> Markup:
    """A figure's division and script, which finds Plotly on the page."""
    return Markup(figure.to_html(full_html=False, include_plotlyjs=False, config=CONFIG, div_id=name))
