"""The figure of an explanation: fractions by head, effects by head and edit, and the cumulative curves."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from plotly.colors import qualitative
from plotly.subplots import make_subplots

from aft_lens.later import later

if TYPE_CHECKING:
    import seaborn as sns
else:
    sns = later("seaborn")

ANNOTATED = 12
"""Heads a layer up to which cells have their number in them."""
FRACTIONS, EFFECTS = "viridis", "RdBu_r"


@dataclass(frozen=True)
class Panel:
    """One number of every head, drawn as a heat map of layers by heads."""

    title: str
    colour: Float[np.ndarray, "layer head"]
    number: Float[np.ndarray, "layer head"]
    """Written into the cells."""
    words: list[list[str]]
    """Under the pointer."""
    layers: Sequence[int]


@dataclass(frozen=True)
class Curve:
    """Accuracy change by the number of replaced heads, percent points."""

    name: str
    change: list[float]
    low: list[float]
    high: list[float]


@dataclass(frozen=True)
class Drawing:
    """Everything of the figure."""

    title: str
    fractions: list[Panel]
    """Colours from 0 to 1."""
    effects: list[Panel]
    """Colours around 0, on one scale."""
    counts: Sequence[int]
    curves: list[Curve]
    order: str
    """Which heads the curves start with."""

    @property
    def limit(self) -> float:
        """Largest size of an effect's colour, or 1 where all are 0 or there are none."""
        return max((float(np.nanmax(np.abs(panel.colour))) for panel in self.effects), default=0.0) or 1.0


COLUMNS = 4
EFFECT_UNIT = "change of loss (nats)"
CURVE_UNIT = "change of accuracy (points)"


def size(drawing: Drawing) -> tuple[float, float]:
    """Width and height in inches."""
    rows = 1 + -(-len(drawing.effects) // COLUMNS)
    height = max(1.5, 0.3 * len(drawing.fractions[0].colour) + 0.8)
    return 3.2 * COLUMNS, rows * height + 0.7


def draw(drawing: Drawing, figure: Figure | SubFigure) -> None:
    """Fractions and curves above, a panel an edit below."""
    rows = 1 + -(-len(drawing.effects) // COLUMNS)
    grid = figure.add_gridspec(rows, COLUMNS)
    shares = [figure.add_subplot(grid[0, i]) for i in range(len(drawing.fractions))]
    for axis, panel in zip(shares, drawing.fractions):
        _heat(axis, panel, (0.0, 1.0), FRACTIONS)
    _bar(figure, shares, (0.0, 1.0), FRACTIONS, "fraction")
    axis = figure.add_subplot(grid[0, len(drawing.fractions) :])
    for curve in drawing.curves:
        (line,) = axis.plot(drawing.counts, curve.change, marker="o", markersize=3, label=curve.name)
        axis.fill_between(drawing.counts, curve.low, curve.high, alpha=0.15, color=line.get_color(), linewidth=0)
    axis.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    axis.set_xlabel(f"heads replaced, {drawing.order} first", fontsize=7)
    axis.set_ylabel(CURVE_UNIT, fontsize=7)
    axis.tick_params(labelsize=6)
    axis.legend(fontsize=7, frameon=False)
    axes = [figure.add_subplot(grid[1 + i // COLUMNS, i % COLUMNS]) for i in range(len(drawing.effects))]
    for axis, panel in zip(axes, drawing.effects):
        _heat(axis, panel, (-drawing.limit, drawing.limit), EFFECTS)
    title = drawing.title
    if axes:
        _bar(figure, axes, (-drawing.limit, drawing.limit), EFFECTS, EFFECT_UNIT)
        title += "; below, one head edited: colours loss, numbers accuracy in points"
    figure.suptitle(title, fontsize=9)


def _heat(axis: Axes, panel: Panel, limits: tuple[float, float], colours: str) -> None:
    """One panel."""
    numbers = panel.number if panel.number.shape[1] <= ANNOTATED else False
    sns.heatmap(
        panel.colour, ax=axis, vmin=limits[0], vmax=limits[1], cmap=colours, cbar=False, annot=numbers, fmt=".2g",
        annot_kws={"fontsize": 6}, yticklabels=list(panel.layers),
    )  # fmt: skip
    axis.set_title(panel.title, fontsize=8)
    axis.set_xlabel("head", fontsize=7)
    axis.set_ylabel("layer", fontsize=7)
    axis.tick_params(labelsize=6, rotation=0)


def _bar(figure: Figure | SubFigure, axes: list[Axes], limits: tuple[float, float], colours: str, label: str) -> None:
    """The colour bar that panels share."""
    bar = figure.colorbar(ScalarMappable(Normalize(*limits), colours), ax=axes, aspect=30, pad=0.01)
    bar.set_label(label, fontsize=7)
    bar.ax.tick_params(labelsize=6)


def interactive(drawing: Drawing) -> go.Figure:
    """The same with every value and interval under the pointer."""
    panels = [*drawing.fractions, *drawing.effects]
    columns = 3
    rows = -(-len(panels) // columns)
    curve_row: list[dict | None] = [{"colspan": columns}, *[None] * (columns - 1)]
    figure = make_subplots(
        rows + 1, columns, specs=[*[[{}] * columns for _ in range(rows)], curve_row],
        subplot_titles=[panel.title for panel in panels] + [""] * (rows * columns - len(panels)),
        vertical_spacing=0.09, horizontal_spacing=0.06,
    )  # fmt: skip
    for i, panel in enumerate(panels):
        axis = "coloraxis" if i < len(drawing.fractions) else "coloraxis2"
        layer = [str(number) for number in panel.layers]
        heat = go.Heatmap(
            z=panel.colour, y=layer, text=panel.words, coloraxis=axis, hovertemplate="%{text}<extra></extra>"
        )
        figure.add_trace(heat, 1 + i // columns, 1 + i % columns)
    figure.update_yaxes(autorange="reversed", type="category", title="layer")
    figure.update_xaxes(title="head")
    for curve, colour in zip(drawing.curves, qualitative.D3):
        spread = np.array([curve.high, curve.low]) - np.array(curve.change)
        bars = {"type": "data", "symmetric": False, "array": spread[0], "arrayminus": -spread[1]}
        line = go.Scatter(
            x=list(drawing.counts), y=curve.change, name=curve.name, error_y=bars, mode="lines+markers",
            line={"color": colour},
        )  # fmt: skip
        figure.add_trace(line, rows + 1, 1)
    figure.update_xaxes(title=f"heads replaced, {drawing.order} first", row=rows + 1, col=1)
    figure.update_yaxes(title=CURVE_UNIT, autorange=True, type="linear", row=rows + 1, col=1)
    figure.update_annotations(font_size=12)
    height = 140 + rows * (120 + 22 * panels[0].colour.shape[0]) + 320
    figure.update_layout(
        title=drawing.title, width=1150, height=height, legend={"orientation": "h", "y": -0.12},
        coloraxis={"colorscale": "Viridis", "cmin": 0, "cmax": 1,
                   "colorbar": {"title": "fraction", "len": 0.4, "y": 0.8}},
        coloraxis2={"colorscale": "RdBu_r", "cmin": -drawing.limit, "cmax": drawing.limit,
                    "colorbar": {"title": EFFECT_UNIT, "len": 0.4, "y": 0.35}},
    )  # fmt: skip
    return figure
