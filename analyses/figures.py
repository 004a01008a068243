"""Mosaics of maps by layer and head: PNG and SVG by matplotlib, HTML by Plotly, JSON beside them."""

import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots

MOST_HEADS = 16
"""Heads drawn of each layer; where there are more, so many evenly spread ones."""
CELL = 0.75
"""Side of a map in the PNG and SVG, in inches."""
COLOURS = "RdBu_r"


def spread(count: int) -> list[int]:
    """Indices of the heads that are drawn."""
    if count <= MOST_HEADS:
        return list(range(count))
    return np.linspace(0, count - 1, MOST_HEADS).round().astype(int).tolist()


def bound(maps: Float[np.ndarray, "layer head y x"]) -> float:
    """Symmetric colour limit: the 99.5th percentile of |value|, or the maximum where that is 0, or 1."""
    size = np.abs(maps[np.isfinite(maps)])
    if not size.size or not size.max():
        return 1.0
    return float(np.percentile(size, 99.5)) or float(size.max())


def draw(maps: Float[np.ndarray, "layer head y x"], title: str, unit: str, limit: float, column: str) -> plt.Figure:
    """One row a layer and one column a head, on one colour scale with 0 in the middle."""
    heads = spread(maps.shape[1])
    rows, columns = len(maps), len(heads)
    size = (max(4.5, CELL * columns + 1.6), CELL * rows + 0.9)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    scale = plt.cm.ScalarMappable(plt.Normalize(-limit, limit), COLOURS)
    for layer, head_axes in enumerate(axes):
        for head, axis in zip(heads, head_axes):
            # Not seaborn's heatmap, which draws the whole figure once a tile: minutes for a ViT-B.
            axis.imshow(maps[layer, head], COLOURS, vmin=-limit, vmax=limit, interpolation="none")
            axis.set(xticks=[], yticks=[], frame_on=False)
            if layer == 0:
                axis.set_title(str(head), fontsize=7)
        head_axes[0].set_ylabel(str(layer), rotation=0, labelpad=8, fontsize=7)
    figure.suptitle(title, fontsize=9)
    figure.supxlabel(column, fontsize=8)
    figure.supylabel("layer", fontsize=8)
    figure.colorbar(scale, ax=axes, label=unit, fraction=0.05, shrink=0.8)
    return figure


def interactive(
    maps: Float[np.ndarray, "layer head y x"], title: str, unit: str, limit: float, column: str, centred: bool
) -> go.Figure:
    """The same mosaic with the value and offset under the pointer."""
    heads = spread(maps.shape[1])
    figure = make_subplots(len(maps), len(heads), horizontal_spacing=0.004, vertical_spacing=0.012)
    rows, columns = maps.shape[2:]
    y = np.arange(rows) - (rows // 2 if centred else 0)
    x = np.arange(columns) - (columns // 2 if centred else 0)
    place = "Δy %{y}, Δx %{x}" if centred else "y %{y}, x %{x}"
    for layer in range(len(maps)):
        for j, head in enumerate(heads):
            text = f"layer {layer}, {column} {head}<br>{place}<br>{unit} %{{z:.4g}}<extra></extra>"
            heat = go.Heatmap(z=maps[layer, head], x=x, y=y, coloraxis="coloraxis", hovertemplate=text)
            figure.add_trace(heat, layer + 1, j + 1)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False, autorange="reversed")
    figure.update_layout(
        title=title, width=120 + 62 * len(heads), height=110 + 62 * len(maps),
        margin={"l": 20, "r": 20, "t": 60, "b": 20},
        coloraxis={"colorscale": "RdBu_r", "cmin": -limit, "cmax": limit, "colorbar": {"title": unit}},
    )  # fmt: skip
    return figure


def save_mosaic(
    maps: Float[np.ndarray, "layer head y x"],
    out: Path,
    name: str,
    *,
    title: str,
    unit: str,
    record: Mapping[str, Any],
    limit: float | None = None,
    column: str = "head",
    centred: bool = True,
) -> list[Path]:
    """Write NAME.json, .png, .svg and .html into a folder and return their paths."""
    out.mkdir(parents=True, exist_ok=True)
    limit = bound(maps) if limit is None else limit
    if maps.shape[1] > MOST_HEADS:
        title += f" ({MOST_HEADS} of {maps.shape[1]} {column}s)"
    paths = [out / f"{name}.{kind}" for kind in ("json", "png", "svg", "html")]
    paths[0].write_text(json.dumps({**record, "maps": rounded(maps)}) + "\n")
    figure = draw(maps, title, unit, limit, column)
    figure.savefig(paths[1], dpi=160)
    figure.savefig(paths[2])
    plt.close(figure)
    interactive(maps, title, unit, limit, column, centred).write_html(paths[3], include_plotlyjs=True)
    return paths


def report_folder(source: Path | str, *variant: str) -> Path:
    """Where a source's figures go if nothing is said: reports/NAME, NAME being a checkpoint's or a library's model's.

    A pruned model, whose own folder is called "model", has the name of the folder that it was pruned into. Each
    `variant` is added to the name, so that a control does not replace what it is a control of.
    """
    path = Path(source)
    if path.is_dir():
        path = path.resolve()
        name = path.parent.name if path.name == "model" else path.name
    else:
        name = str(source).replace(":", "-").replace("/", "-")
    return Path("reports") / "-".join([name, *variant])


def rounded(values: np.ndarray) -> list[Any]:
    """Nested lists with six significant digits."""
    flat = [float(f"{value:.6g}") for value in np.asarray(values, dtype=float).ravel()]
    return np.array(flat).reshape(values.shape).tolist()


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned to the right under their names."""
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in [list(header), *map(list, rows)]
    )


def headed(figure: go.Figure, title: str, lines: Sequence[str], width: int, height: int) -> go.Figure:
    """A title with smaller lines below it, e.g. the command that made the figure, and room for them above the panels.

    Long lines are broken to the `width`; `height` is that of the panels (both in pixels). Returns the same figure.
    """
    small = [part for line in lines for part in textwrap.wrap(line, max(40, width // 7))]
    top = 50 + 22 * (title.count("<br>") + len(small) + 1)
    text = title + "".join(f"<br><sub>{part}</sub>" for part in small)
    figure.update_layout(
        title={"text": text, "y": 1, "yref": "container", "yanchor": "top", "pad": {"t": 18}, "font_size": 15},
        width=width, height=height + top, margin_t=top,
    )  # fmt: skip
    return figure
