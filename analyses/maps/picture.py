"""The mosaic of maps by layer and head on paper, by matplotlib."""

from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure

from analyses.maps.head_maps import HeadMaps, shared_bound

CELL = 0.75
"""Side of a map, in inches."""
COLOURS = "RdBu_r"


def size(maps: HeadMaps) -> tuple[float, float]:
    """Width and height of a figure for `draw`, in inches."""
    return max(4.5, CELL * maps.spread().heads + 1.6), CELL * maps.layers + 0.9


def draw(maps: HeadMaps, figure: Figure | SubFigure, title: str) -> None:
    """One row a layer and one column a head, evenly spread ones of many, on one colour scale with 0 in the middle."""
    shown, limit = maps.spread(), shared_bound(maps)
    if shown.heads < maps.heads:
        title += f" ({shown.heads} of {maps.heads} {maps.column}s)"
    axes = figure.subplots(shown.layers, shown.heads, squeeze=False)
    for layer, head_axes in enumerate(axes):
        for head, axis in enumerate(head_axes):
            # Not seaborn's heatmap, which draws the whole figure once a tile: minutes for a ViT-B.
            axis.imshow(shown.values[layer, head], COLOURS, vmin=-limit, vmax=limit, interpolation="none")
            axis.set(xticks=[], yticks=[], frame_on=False)
            if layer == 0:
                axis.set_title(str(shown.numbers[head]), fontsize=7)
        head_axes[0].set_ylabel(str(layer), rotation=0, labelpad=8, fontsize=7)
    figure.suptitle(title, fontsize=9)
    figure.supxlabel(maps.column, fontsize=8)
    figure.supylabel("layer", fontsize=8)
    scale = ScalarMappable(Normalize(-limit, limit), COLOURS)
    # The pointed ends: a head far beyond the others has the full colour.
    figure.colorbar(scale, ax=axes, label=maps.unit, fraction=0.05, shrink=0.8, extend="both")
