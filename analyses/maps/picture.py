"""The mosaic of maps by layer and head on paper, by matplotlib."""

import numpy as np
from jaxtyping import Float
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure

from analyses.maps.head_maps import HeadMaps, shared_bound

CELL = 0.75
"""Side of a map, in inches."""
COLOURS = "RdBu_r"
FAR = 10.0
"""How many times the median head's largest value another's may have on a linear scale."""


def size(maps: HeadMaps) -> tuple[float, float]:
    """Width and height of a figure for `draw`, in inches."""
    return max(4.5, CELL * maps.spread().heads + 1.6), CELL * maps.layers + 0.9


def draw(maps: HeadMaps, figure: Figure | SubFigure, title: str) -> None:
    """One row a layer and one column a head, evenly spread ones of many, with 0 in the middle of the colours.

    All heads share a linear scale, unless some head's values are more than ten times another's: then each has its own,
    the signed logarithm log(1 + |value|) over that head's largest, so that every head can be seen. Heads that do
    nothing are framed.
    """
    shown, limit = maps.spread(), shared_bound(maps)
    own = _far_apart(maps, limit)
    values, unit = (_own_scale(shown.values), f"{maps.unit}, signed log,\neach head's own scale") if own else (
        shown.values, maps.unit,
    )  # fmt: skip
    norm = Normalize(-1, 1) if own else Normalize(-limit, limit)
    if shown.heads < maps.heads:
        title += f" ({shown.heads} of {maps.heads} {maps.column}s)"
    axes = figure.subplots(shown.layers, shown.heads, squeeze=False)
    for layer, head_axes in enumerate(axes):
        for head, axis in enumerate(head_axes):
            # Not seaborn's heatmap, which draws the whole figure once a tile: minutes for a ViT-B.
            axis.imshow(values[layer, head], COLOURS, norm=norm, interpolation="none")
            idle = shown.idle is not None and bool(shown.idle[layer, head])
            axis.set(xticks=[], yticks=[], frame_on=idle)
            for spine in axis.spines.values():
                spine.set(color="#9aa5b1", linestyle=":", linewidth=1)
            if layer == 0:
                axis.set_title(str(shown.numbers[head]), fontsize=7)
        head_axes[0].set_ylabel(str(layer), rotation=0, labelpad=8, fontsize=7)
    figure.suptitle(title, fontsize=9)
    dotted = "; dotted: does nothing" if shown.idle is not None and shown.idle.any() else ""
    figure.supxlabel(f"{maps.column}{dotted}", fontsize=8)
    figure.supylabel("layer", fontsize=8)
    scale = ScalarMappable(norm, COLOURS)
    # The pointed ends: a head far beyond the others has the full colour.
    bar = figure.colorbar(scale, ax=axes, fraction=0.05, shrink=0.8, extend="neither" if own else "both")
    bar.set_label(unit, fontsize=8)  # short lines: the bar may be as low as one layer
    bar.ax.tick_params(labelsize=8)


def _far_apart(maps: HeadMaps, limit: float) -> bool:
    """Whether one linear scale would hide heads."""
    return bool(maps.signed and np.isfinite(maps.values).any() and np.nanmax(np.abs(maps.values)) > FAR * limit)


def _own_scale(values: Float[np.ndarray, "layer head y x"]) -> Float[np.ndarray, "layer head y x"]:
    """Signed logarithms over each head's largest."""
    logs = np.sign(values) * np.log1p(np.abs(values))
    peaks = np.nanmax(np.abs(logs), (2, 3), keepdims=True)
    return np.divide(logs, peaks, out=np.zeros_like(logs), where=peaks > 0)
