"""Drawing an ablation: score over heads replaced, by replacement and by order, and single heads."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from plotly.subplots import make_subplots

from analyses import theme

if TYPE_CHECKING:
    from analyses.ablate.ablation import Ablation
    from analyses.ablate.curve import Curve

COLOURS = "RdBu"


def size(found: "Ablation") -> tuple[float, float]:
    """Width and height in inches."""
    return 11.0, 4.2 + (0.32 * len(found.deviation) + 0.9 if found.single else 0)


def draw(found: "Ablation", figure: Figure | SubFigure) -> None:
    """Two panels of curves, and a heat map of single heads for each of their rungs."""
    maps = len(found.single)
    grid = figure.add_gridspec(2 if maps else 1, 2 * max(1, maps), height_ratios=[1.4, 1] if maps else [1])
    wide = max(1, maps)
    for place, (curves, title) in enumerate(_panels(found)):
        axis = figure.add_subplot(grid[0, place * wide : (place + 1) * wide])
        _curves(axis, curves, found, title, by_order=bool(place))
    for place, (rung, points) in enumerate(found.single.items()):
        axis = figure.add_subplot(grid[1, 2 * place : 2 * place + 2])
        change = 100 * np.array([point.change for point in points]).reshape(found.deviation.shape)
        bound = max(1.0, float(np.abs(change).max()))
        image = axis.imshow(change, COLOURS, vmin=-bound, vmax=bound, aspect="auto")
        axis.set(xlabel="head", ylabel="layer", xticks=range(change.shape[1]), yticks=range(change.shape[0]))
        axis.set_title(f"one head alone: {rung.words}", fontsize=9)
        figure.colorbar(image, ax=axis, label=f"change of {found.unit} (points)", pad=0.01)
    figure.suptitle(f"{found.shown}: how many heads can be replaced", fontsize=10)


def _panels(found: "Ablation") -> list[tuple[list["Curve"], str]]:
    first = [one for one in found.curves if one.order == found.plan.orders[0]]
    by = [one for one in found.curves if one.rung == found.plan.by]
    return [(first, f"by replacement, {found.plan.orders[0]} first"), (by, f"by order, {found.plan.by.words}")]


def _curves(axis: Axes, curves: Sequence["Curve"], found: "Ablation", title: str, *, by_order: bool) -> None:
    for number, curve in enumerate(curves):
        counts = [0, *(point.count for point in curve.points)]
        colour = theme.SERIES[number % len(theme.SERIES)]
        style = "-" if number < len(theme.SERIES) else "--"
        label = curve.order if by_order else curve.rung.words
        axis.plot(counts, [0.0, *(100 * point.change for point in curve.points)], style, marker="o", markersize=2.5,
                  color=colour, label=label)  # fmt: skip
        low, high = ([0.0, *(100 * point.interval[side] for point in curve.points)] for side in (0, 1))
        axis.fill_between(counts, low, high, color=colour, alpha=0.12, linewidth=0)
    axis.axhline(-found.plan.tolerance, color=theme.MUTED, linestyle=":", linewidth=1)
    axis.set_title(title, fontsize=9)
    axis.set_xlabel(f"heads replaced, of {found.heads}", fontsize=8)
    axis.set_ylabel(f"change of {found.unit} (points)", fontsize=8)
    axis.tick_params(labelsize=7)
    axis.legend(fontsize=7, frameon=False)


def interactive(found: "Ablation") -> go.Figure:
    """The same by Plotly."""
    panels = _panels(found)
    maps = list(found.single.items())
    titles = [*(title for _, title in panels), *(f"one head alone: {rung.words}" for rung, _ in maps)]
    rows = 1 + -(-len(maps) // 2)
    figure = make_subplots(rows, 2, subplot_titles=titles, horizontal_spacing=0.1, vertical_spacing=0.12)
    for place, (curves, _) in enumerate(panels):
        for number, curve in enumerate(curves):
            figure.add_trace(_line(curve, number, by_order=bool(place)), 1, place + 1)
        figure.update_xaxes(title=f"heads replaced, of {found.heads}", row=1, col=place + 1)
        figure.update_yaxes(title=f"change of {found.unit} (points)", row=1, col=place + 1)
    shape = found.deviation.shape
    for place, (_, points) in enumerate(maps):
        change = 100 * np.array([point.change for point in points]).reshape(shape)
        text = np.array([point.points for point in points]).reshape(shape)
        heat = go.Heatmap(z=change, text=text, coloraxis="coloraxis",
                          hovertemplate="layer %{y}, head %{x}<br>%{text}<extra></extra>")  # fmt: skip
        figure.add_trace(heat, 2 + place // 2, 1 + place % 2)
        figure.update_yaxes(autorange="reversed", title="layer", dtick=1, row=2 + place // 2, col=1 + place % 2)
        figure.update_xaxes(title="head", dtick=1, row=2 + place // 2, col=1 + place % 2)
    theme.axes(theme.layout(figure, title=f"{found.shown}: how many heads can be replaced", height=420 * rows))
    bound = max([1.0, *(abs(100 * point.change) for _, points in maps for point in points)])
    bar: dict[str, Any] = {"colorscale": "RdBu", "cmin": -bound, "cmax": bound}
    return figure.update_layout(coloraxis=bar | {"colorbar": {"title": "points", "len": 0.4, "y": 0.2}})


def _line(curve: "Curve", number: int, *, by_order: bool) -> go.Scatter:
    changes = [0.0, *(100 * point.change for point in curve.points)]
    low, high = ([0.0, *(100 * point.interval[side] for point in curve.points)] for side in (0, 1))
    return go.Scatter(
        x=[0, *(point.count for point in curve.points)], y=changes, mode="lines+markers",
        name=f"order: {curve.order}" if by_order else curve.rung.words,
        line={"color": theme.SERIES[number % len(theme.SERIES)], "dash": "dot" if by_order else "solid"},
        error_y={"type": "data", "symmetric": False, "array": np.subtract(high, changes),
                 "arrayminus": np.subtract(changes, low), "thickness": 1},
    )  # fmt: skip
