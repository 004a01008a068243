"""The atlas as a figure: component and cluster maps, and below each where it occurs, by layer and head."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure, SubFigure
from plotly.subplots import make_subplots

from analyses.match.figure import bare, heat, tile
from analyses.match.heads import Heads
from analyses.provenance import command_line
from analyses.theme import headed

LEFT_OUT = "0.85"
"""Colour of heads that are flat."""


@dataclass(frozen=True)
class Page:
    """What an atlas shows."""

    models: tuple[Heads, ...]
    components: Float[np.ndarray, "k y x"]
    """Weights relative to a uniform share, minus 1."""
    loadings: tuple[Float[np.ndarray, "n k"], ...]
    """By model, 0 to 1."""
    cluster_maps: Float[np.ndarray, "c y x"]
    members: tuple[Float[np.ndarray, "n c"], ...]
    """By model, 1 for a head's cluster and 0 elsewhere."""
    titles: tuple[str, str]
    """Of the components and of the clusters."""


def by_place(heads: Heads, values: np.ndarray) -> np.ndarray:
    """A number a head laid out `layer head`, NaN for flat heads."""
    grid = np.full(heads.shape, np.nan)
    grid[tuple(np.array(heads.places).T)] = values
    return grid


def size(page: Page) -> tuple[float, float]:
    """Width and height in inches."""
    return 1.35 * _columns(page) + 1.2, 2 * sum(_heights(page)) + 1.4


def draw(page: Page, figure: Figure | SubFigure) -> None:
    """Above, each NMF component and its loadings in every model; below, each cluster's mean map and its heads."""
    columns, tall = _columns(page), _heights(page)
    blocks: Any = figure.subfigures(2, 1)
    _block(blocks[0], page.titles[0], page.components, page.models, page.loadings, tall, columns, "component")
    _block(blocks[1], page.titles[1], page.cluster_maps, page.models, page.members, tall, columns, "cluster")


def _columns(page: Page) -> int:
    return max(len(page.components), len(page.cluster_maps))


def _heights(page: Page) -> list[float]:
    """Of the row of maps and of each model's row below it."""
    return [1.3, *(max(0.7, 1.3 * min(1.0, heads.shape[0] / heads.shape[1])) + 0.25 for heads in page.models)]


def _block(
    block: SubFigure,
    title: str,
    maps: np.ndarray,
    models: Sequence[Heads],
    values: Sequence[np.ndarray],
    tall: Sequence[float],
    columns: int,
    name: str,
) -> None:
    """A row of maps and a row a model of `layer head` grids below them, all on one scale."""
    colours = "viridis" if name == "component" else ListedColormap(["0.93", "#c44e52"])
    top = max(float(shares.max()) for shares in values)
    block.suptitle(title, fontsize=9)
    axes = block.subplots(1 + len(models), columns, squeeze=False, height_ratios=tall)
    for axis in axes.flat:
        axis.set_axis_off()
    for number, one in enumerate(maps):
        axes[0, number].set_axis_on()
        tile(axes[0, number], one, title=f"{name} {number} (±{np.abs(one).max():.2g})")
    for row, (heads, shares) in enumerate(zip(models, values), 1):
        for number in range(len(maps)):
            axis = axes[row, number]
            axis.set_axis_on()
            axis.set_facecolor(LEFT_OUT)
            grid = by_place(heads, shares[:, number])
            axis.imshow(grid, cmap=colours, vmin=0, vmax=top, aspect="auto",
                                interpolation="nearest")  # fmt: skip
            axis.set_xticks([])
            axis.set_yticks(range(heads.shape[0]) if heads.shape[0] <= 6 and not number else [])
            axis.tick_params(labelsize=6, length=0)
        axes[row, 0].set_ylabel(f"{heads.label}\nlayer", fontsize=7)
        axes[row, 0].set_xlabel("head", fontsize=7)
    if name == "component":
        scale = ScalarMappable(Normalize(0, top), colours)
        bar = block.colorbar(scale, ax=axes[1:], fraction=0.02, pad=0.01)
        bar.set_label("share of a head's weight", fontsize=7)
        bar.ax.tick_params(labelsize=6)


def interactive(page: Page) -> go.Figure:
    """The same with layer, head and value under the pointer."""
    columns, rows = _columns(page), 1 + len(page.models)
    names = [
        f"{name} {number}" if row == 0 and number < len(maps) else ""
        for name, maps in (("component", page.components), ("cluster", page.cluster_maps))
        for row in range(rows)
        for number in range(columns)
    ]
    figure = make_subplots(2 * rows, columns, subplot_titles=names, horizontal_spacing=0.01, vertical_spacing=0.03)
    for start, maps, values in ((1, page.components, page.loadings),
                                (1 + rows, page.cluster_maps, page.members)):  # fmt: skip
        for number, one in enumerate(maps):
            figure.add_trace(heat(one, names[(start - 1) * columns + number]), start, number + 1)
            for row, (heads, shares) in enumerate(zip(page.models, values), 1):
                text = f"{heads.label}<br>layer %{{y}}, head %{{x}}<br>share %{{z:.3f}}<extra></extra>"
                grid = go.Heatmap(z=by_place(heads, shares[:, number]), zmin=0, zmax=1, colorscale="Viridis",
                                  showscale=False, hovertemplate=text)  # fmt: skip
                figure.add_trace(grid, start + row, number + 1)
    for start in (1, 1 + rows):
        for row, heads in enumerate(page.models, 1):
            figure.update_yaxes(title=heads.label, row=start + row, col=1)
    bare(figure)
    figure.update_layout(margin={"l": 50, "r": 20, "b": 20})
    return headed(figure, "<br>".join(page.titles), [command_line()], 120 + 150 * columns, 2 * 150 * rows)
