"""The published figure: every head's attention around its target, and how far each layer looks."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure, SubFigure

SIZE = (12.0, 8.4)


def draw(record: Mapping[str, Any]) -> Figure:
    """A new figure of a published record."""
    figure = Figure(figsize=SIZE, layout="constrained")
    draw_into(figure, record)
    return figure


def draw_into(figure: Figure | SubFigure, record: Mapping[str, Any]) -> None:
    """Not yet."""
    figure.suptitle(record["model"])
