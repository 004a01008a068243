"""The published figure: every head's attention around its target, and how far each layer looks."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from analyses import theme
from analyses.trained_vit.heads import THIRD

SIZE = (12.0, 8.2)
REACH = 7
"""Offsets that are drawn on each side of the target: farther ones would make the near ones too small to see."""
BOUND = 128.0
"""Largest colour, in shares of flat attention; the least is its inverse."""
COLOURS = "RdBu_r"
SPREAD = 0.02
"""Share below which a strongest offset says nothing."""
ARROWS = {
    "right": "→", "left": "←", "above": "↑", "below": "↓", "the patch itself": "itself",
    "above and right": "↗", "above and left": "↖", "below and right": "↘", "below and left": "↙",
}  # fmt: skip


def draw(record: Mapping[str, Any]) -> Figure:
    """A new figure of a published record."""
    figure = Figure(figsize=SIZE, layout="constrained")
    draw_into(figure, record)
    return figure


def draw_into(figure: Figure | SubFigure, record: Mapping[str, Any]) -> None:
    """A column a layer: a tile a head, with its strongest offset in words, and below them its mean distances.

    Colours are logarithmic, so that a head with two thirds of its attention on one offset and one that looks a little
    nearer than flat are both seen for what they are. Heads with over a third on one offset are framed.
    """
    layers, heads = (1 + max(row[key] for row in record["heads"]) for key in ("layer", "head"))
    grid = figure.add_gridspec(heads + 1, layers, height_ratios=[1.0] * heads + [1.25])
    norm = LogNorm(1 / BOUND, BOUND)
    tiles = []
    for row, one in zip(record["heads"], record["maps"], strict=True):
        axis = figure.add_subplot(grid[row["head"], row["layer"]])
        _tile(axis, np.asarray(one["map"]), row, norm)
        if row["head"] == 0:
            axis.set_title(f"layer {row['layer']}", fontsize=9.5, pad=5)
        if row["layer"] == 0:
            axis.set_ylabel(f"head {row['head']}", fontsize=9.5, labelpad=5)
        tiles.append(axis)
    _distances(figure.add_subplot(grid[heads, :]), record, layers)
    strong = sum(row["share"] > THIRD for row in record["heads"])
    figure.suptitle(
        f"Where the heads of {record['model']} look: attention by offset, up to {REACH} patches from the target "
        f"(square), mean over {record['images']} photographs\n"
        "below each tile: its strongest offset and the share of the attention on it; "
        f"framed: over a third ({strong} of {layers * heads} heads)",
        fontsize=11.5,
    )
    bar = figure.colorbar(ScalarMappable(norm, COLOURS), ax=tiles, extend="both", fraction=0.03, pad=0.01, aspect=40)
    bar.set_label("attention, times that of a flat map", fontsize=9)
    bar.ax.yaxis.set_major_locator(FixedLocator([1 / 64, 1 / 16, 1 / 4, 1, 4, 16, 64]))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if value >= 1 else f"1/{1 / value:g}"))


def _tile(axis: Axes, values: np.ndarray, row: Mapping[str, Any], norm: LogNorm) -> None:
    """One head around its target, which a hollow square marks."""
    middle = [side // 2 for side in values.shape]
    reach = [min(REACH, place) for place in middle]
    near = values[tuple(slice(place - far, place + far + 1) for place, far in zip(middle, reach))]
    extent = (-reach[1] - 0.5, reach[1] + 0.5, reach[0] + 0.5, -reach[0] - 0.5)
    axis.imshow(near.clip(1 / BOUND), COLOURS, norm=norm, interpolation="none", extent=extent)
    axis.add_patch(Rectangle((-0.5, -0.5), 1, 1, fill=False, edgecolor=theme.INK, linewidth=0.6))
    axis.set(xticks=[], yticks=[])
    strong = row["share"] > THIRD
    for spine in axis.spines.values():
        spine.set(visible=strong, linewidth=1.8, edgecolor=theme.INK)
    axis.set_xlabel(
        _words(row), fontsize=9.5, labelpad=2, color=theme.INK if strong else theme.MUTED,
        fontweight="bold" if strong else "normal",
    )  # fmt: skip


def _words(row: Mapping[str, Any]) -> str:
    """The strongest offset and its share: a neighbour's side in words where the head lives on it, else an arrow."""
    if row["share"] < SPREAD:
        return "spread"
    arrow = ARROWS.get(row["place"], f"{row['dy']:+d}, {row['dx']:+d}")
    place = row["place"] if row["share"] > THIRD and (row["dy"], row["dx"]) != (0, 0) else arrow
    return f"{place} {100 * row['share']:.0f} %"


def _distances(axis: Axes, record: Mapping[str, Any], layers: int) -> None:
    """Every head's mean distance below its layer, beside random weights and the flat map."""
    rows = record["heads"]
    place = [row["layer"] for row in rows]
    axis.scatter(
        place, [row["random_distance"] for row in rows], s=26, facecolors="white", edgecolors=theme.MUTED,
        label="a head of random weights",
    )  # fmt: skip
    axis.scatter(place, [row["distance"] for row in rows], s=26, color=theme.SERIES[0], alpha=0.75, label="a head")
    means = [np.mean([row["distance"] for row in rows if row["layer"] == layer]) for layer in range(layers)]
    axis.plot(range(layers), means, color=theme.SERIES[0], linewidth=1.5, label="mean of the layer")
    axis.axhline(record["flat_distance"], color=theme.MUTED, linestyle=":", label="a flat map")
    axis.set(xlim=(-0.5, layers - 0.5), ylim=(0, None), xticks=range(layers))
    axis.set_ylabel("mean distance\n(patches)", fontsize=9)
    axis.set_xlabel("layer", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8, frameon=False, ncols=4, loc="lower right")
