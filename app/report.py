"""One self-contained HTML page from tables and figures: it opens without a network."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from app.views.theme import FONT, GRID, INK, MUTED

CONFIG = {"displayModeBar": False, "responsive": True}
STYLE = f"""
body {{font-family: {FONT}; color: {INK}; max-width: 1200px; margin: 2.5rem auto; padding: 0 1.5rem; line-height: 1.5;}}
h1 {{font-size: 2rem; margin-bottom: .2rem;}}
h2 {{font-size: 1.35rem; margin: 2.5rem 0 .3rem;}}
p, footer {{max-width: 75ch;}}
.note, footer {{color: {MUTED};}}
table {{border-collapse: collapse; margin: .8rem 0; width: 100%; font-size: .95rem;}}
th, td {{text-align: left; padding: .45rem .8rem; border-bottom: 1px solid {GRID};}}
th {{color: {MUTED}; font-weight: 600;}}
.figures {{display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); gap: 1rem;}}
figure {{margin: .6rem 0; min-width: 0;}}
figcaption {{font-weight: 600;}}
"""


@dataclass(frozen=True)
class Section:
    """A heading, a paragraph, a table and figures, each of which may be left out."""

    title: str
    text: str = ""
    table: Sequence[Mapping[str, str]] = ()
    figures: Sequence[tuple[str, go.Figure]] = ()
    """(caption, figure), laid side by side where there is room."""
    note: str = ""


def write_report(path: Path, title: str, text: str, sections: Sequence[Section], footer: str) -> Path:
    """Write the page with Plotly's script inside it (about 5 MB) and return its path."""
    body = "\n".join(_section(section, number) for number, section in enumerate(sections))
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">\n'
        f"<style>{STYLE}</style>\n<script>{get_plotlyjs()}</script></head>\n<body>\n"
        f"<h1>{html.escape(title)}</h1>\n<p>{html.escape(text)}</p>\n{body}\n"
        f"<footer><p>{html.escape(footer)}</p></footer>\n</body></html>\n"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def _section(section: Section, number: int) -> str:
    """A section's HTML; every text is escaped."""
    parts = [f"<section><h2>{html.escape(section.title)}</h2>"]
    if section.text:
        parts.append(f"<p>{html.escape(section.text)}</p>")
    if section.table:
        heads = "".join(f"<th>{html.escape(name)}</th>" for name in section.table[0])
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row.values()) + "</tr>"
            for row in section.table
        )
        parts.append(f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>")
    drawn = [
        f"<figure><figcaption>{html.escape(caption)}</figcaption>{_plot(figure, f'plot-{number}-{i}')}</figure>"
        for i, (caption, figure) in enumerate(section.figures)
    ]
    if drawn:
        parts.append(f'<div class="figures">{"".join(drawn)}</div>')
    if section.note:
        parts.append(f'<p class="note">{html.escape(section.note)}</p>')
    return "\n".join([*parts, "</section>"])


def _plot(figure: go.Figure, name: str) -> str:
    """A figure's division and script, which finds Plotly on the page."""
    return figure.to_html(full_html=False, include_plotlyjs=False, config=CONFIG, div_id=name)
