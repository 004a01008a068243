"""Layer-by-head mosaics of maps, and one map enlarged: both answer a click on a cell."""

from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go

from analyses import theme
from analyses.maps.head_maps import HeadMaps, shared_bound

CLICK_POINTS = 30_000
"""Most invisible points laid over a mosaic to take clicks (a heat map's own clicks do not reach Streamlit)."""
TILE = 150
"""Largest side of a map in a mosaic, in pixels."""
SIDES = 140
"""Pixels beside a mosaic for its axis and colour bar."""
MARGIN = {"l": 48, "r": 8, "t": 12, "b": 48}


class Cell(NamedTuple):
    """One value of a model's maps: a layer, a head, and an offset or position."""

    layer: int
    head: int
    y: int
    x: int


def cell_text(maps: HeadMaps, cell: Cell) -> str:
    """A cell in words: layer, head and its offset or position."""
    if maps.by_offset:
        idle = maps.idle is not None and maps.idle[cell.layer, list(maps.numbers).index(cell.head)]
        does = " (does nothing)" if idle else ""
        return f"Layer {cell.layer}, {maps.column} {cell.head}{does}, offset Δy {cell.y:+d}, Δx {cell.x:+d}"
    if maps.targets is None:
        return f"Layer {cell.layer}, {maps.column} {cell.head}, row {cell.y}, column {cell.x}"
    row, column = maps.targets[list(maps.numbers).index(cell.head)]
    return (
        f"Layer {cell.layer}, target {cell.head} (row {row}, column {column}), source at row {cell.y}, column {cell.x}"
    )


def mosaic(
    maps: HeadMaps,
    *,
    bound: float | None = None,
    per_head: bool = False,
    marked: Cell | None = None,
    title: str = "",
    width: int = 600,
) -> go.Figure:
    """Every map in one figure: layers down, heads across, zero in the middle of the colours.

    `bound` is the symmetric colour bound (the maps' own if None). With `per_head` each map is coloured by its
    own largest |value|; hovering still shows the value. `width` is the expected width in pixels, from which the
    height follows. A click selects an invisible point whose customdata is (layer, head, y, x, value).
    """
    rows, columns = maps.frame
    gap = max(1, round(max(rows, columns) / 9))
    canvas = np.full((maps.layers * (rows + gap) - gap, maps.heads * (columns + gap) - gap), np.nan)
    shown = _normalised(maps.values) if per_head else maps.values
    for layer in range(maps.layers):
        for head in range(maps.heads):
            top, left = layer * (rows + gap), head * (columns + gap)
            canvas[top : top + rows, left : left + columns] = shown[layer, head]
    limit = 1.0 if per_head else bound or shared_bound(maps)
    unit = "share of the head's peak" if per_head else maps.unit
    figure = go.Figure(_heatmap(canvas, limit, unit, signed=maps.signed))
    figure.add_trace(_click_points(maps, gap))
    if marked is not None:
        _outline(figure, maps, gap, marked)
    tile = min((width - SIDES) / maps.heads, TILE)
    height = int(np.clip(tile * maps.layers * (rows + gap) / (columns + gap), 120, 1200))
    reach = _reach(tile / (columns + gap) * answering(maps))
    margin = MARGIN | {"t": 44} if title else MARGIN
    height += margin["t"] + margin["b"] + 4
    theme.layout(figure, title=title, height=height, showlegend=False, margin=margin, **reach)
    every = max(1, -(-maps.heads * 34 // width))
    figure.update_xaxes(
        tickvals=[h * (columns + gap) + (columns - 1) / 2 for h in range(0, maps.heads, every)],
        ticktext=[str(number) for number in maps.numbers[::every]],
        title={"text": maps.column, "standoff": 6, "font": {"color": theme.MUTED}},
        constrain="domain",
        constraintoward="left",
        range=[-0.5 - gap / 2, canvas.shape[1] - 0.5 + gap / 2],
        **_BARE,
    )
    figure.update_yaxes(
        tickvals=[n * (rows + gap) + (rows - 1) / 2 for n in range(maps.layers)],
        ticktext=[str(n) for n in range(maps.layers)],
        title={"text": "layer", "standoff": 6, "font": {"color": theme.MUTED}},
        constrain="domain",
        constraintoward="top",
        scaleanchor="x",
        range=[canvas.shape[0] - 0.5 + gap / 2, -0.5 - gap / 2],
        **_BARE,
    )
    return figure


def enlarged(
    maps: HeadMaps,
    layer: int,
    head: int,
    *,
    bound: float | None = None,
    marked: tuple[int, int] | None = None,
    height: int = 340,
) -> go.Figure:
    """One map with axes in offsets or positions; a click selects a cell as in `mosaic`.

    Without a `bound` the map's own largest |value| is the bound. `marked` (y, x) gets an outline, the target that a
    map over positions is drawn for a cross.
    """
    values = maps.values[layer, head]
    rows, columns = maps.frame
    ys = [maps.coordinates(row, 0)[0] for row in range(rows)]
    xs = [maps.coordinates(0, column)[1] for column in range(columns)]
    finite = np.abs(values[np.isfinite(values)])
    limit = bound or (float(finite.max()) if finite.size and finite.max() > 0 else 1.0)
    figure = go.Figure(_heatmap(values, limit, maps.unit, xs, ys, signed=maps.signed))
    grid_y, grid_x = np.meshgrid(ys, xs, indexing="ij")
    points = [Cell(layer, head, int(y), int(x)) for y, x in zip(grid_y.flat, grid_x.flat, strict=True)]
    figure.add_trace(_invisible(grid_x.ravel(), grid_y.ravel(), points, values.ravel(), maps))
    if marked is not None and maps.cell(*marked) is not None:
        y, x = marked
        figure.add_shape(
            type="rect", x0=x - 0.5, x1=x + 0.5, y0=y - 0.5, y1=y + 0.5, line={"color": theme.INK, "width": 2.5}
        )
    if maps.targets is not None:
        y, x = maps.targets[head]
        figure.add_annotation(x=x, y=y, text="×", showarrow=False, font={"size": 20, "color": theme.INK})
    theme.layout(figure, height=height, showlegend=False, margin=MARGIN, **_reach(height / rows))
    name = ("Δx (patches)", "Δy (patches)") if maps.by_offset else ("column (patches)", "row (patches)")
    figure.update_xaxes(
        title={"text": name[0], "standoff": 4},
        constrain="domain",
        constraintoward="left",
        range=[xs[0] - 0.5, xs[-1] + 0.5],
        **_BARE,
    )
    figure.update_yaxes(
        title={"text": name[1], "standoff": 4},
        constrain="domain",
        scaleanchor="x",
        range=[ys[-1] + 0.5, ys[0] - 0.5],
        **_BARE,
    )
    return figure


_BARE = {"showgrid": False, "zeroline": False, "ticks": "", "tickfont": {"color": theme.MUTED, "size": 12}}


def answering(maps: HeadMaps) -> int:
    """Step of the rows and columns of a mosaic that answer a click: 1 up to CLICK_POINTS cells."""
    return max(1, int(np.ceil(np.sqrt(maps.values.size / CLICK_POINTS))))


def _reach(pitch: float) -> dict[str, Any]:
    """Layout by which a click or the pointer takes the nearest point, no farther than a cell of that many pixels."""
    return {"clickmode": "event+select", "hovermode": "closest", "hoverdistance": int(np.ceil(max(0.8 * pitch, 2)))}


def _normalised(values: np.ndarray) -> np.ndarray:
    """Each map over its own largest |value|; a map of zeros stays zero."""
    filled = np.where(np.isfinite(values), np.abs(values), 0.0)
    peak = filled.max((2, 3), keepdims=True)
    return values / np.where(peak > 0, peak, 1.0)


def _heatmap(
    values: np.ndarray,
    limit: float,
    unit: str,
    xs: list[int] | None = None,
    ys: list[int] | None = None,
    *,
    signed: bool = True,
) -> go.Heatmap:
    """A heat map with zero in the middle of its colours, or at their start; hovering is left to the points above it."""
    return go.Heatmap(
        z=values,
        x=xs,
        y=ys,
        zmin=-limit if signed else 0.0,
        zmax=limit,
        colorscale=theme.DIVERGING if signed else theme.RISING,
        colorbar=theme.colorbar(unit),
        hoverinfo="skip",
        hoverongaps=False,
    )


def _click_points(maps: HeadMaps, gap: int) -> go.Scatter:
    """Invisible points over the cells of a mosaic that answer."""
    rows, columns = maps.frame
    step = answering(maps)
    xs, ys, cells, values = [], [], [], []
    for layer in range(maps.layers):
        for head in range(maps.heads):
            for row in range((rows // 2) % step, rows, step):
                for column in range((columns // 2) % step, columns, step):
                    value = maps.values[layer, head, row, column]
                    if np.isfinite(value):
                        xs.append(head * (columns + gap) + column)
                        ys.append(layer * (rows + gap) + row)
                        cells.append(Cell(layer, maps.numbers[head], *maps.coordinates(row, column)))
                        values.append(value)
    return _invisible(np.array(xs), np.array(ys), cells, np.array(values), maps)


def _invisible(xs: np.ndarray, ys: np.ndarray, cells: list[Cell], values: np.ndarray, maps: HeadMaps) -> go.Scatter:
    """Points that are not seen but hovered and clicked; customdata is (layer, head, y, x, value).

    They are texts without a word: of markers within 3 pixels of the pointer Plotly takes the last, of texts the
    nearest, and it draws no element for an empty one.
    """
    place = (
        "Δy %{customdata[2]}, Δx %{customdata[3]}"
        if maps.by_offset
        else "row %{customdata[2]}, column %{customdata[3]}"
    )
    return go.Scatter(
        x=xs,
        y=ys,
        mode="text",
        text="",
        customdata=np.column_stack([np.array(cells, float).reshape(-1, len(Cell._fields)), values]),
        hovertemplate=(
            f"layer %{{customdata[0]}}, {maps.column} %{{customdata[1]}}<br>"
            + place
            + "<br><b>%{customdata[4]:.4g}</b><extra></extra>"
        ),
    )


def _outline(figure: go.Figure, maps: HeadMaps, gap: int, marked: Cell) -> None:
    """Frame the tile of the marked cell."""
    rows, columns = maps.frame
    if marked.head not in maps.numbers or not 0 <= marked.layer < maps.layers:
        return
    head = list(maps.numbers).index(marked.head)
    left, top = head * (columns + gap) - 0.5, marked.layer * (rows + gap) - 0.5
    figure.add_shape(
        type="rect", x0=left, x1=left + columns, y0=top, y1=top + rows, line={"color": theme.INK, "width": 1.5}
    )
