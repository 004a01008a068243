"""Layer-by-head mosaics of maps, and one map enlarged: both answer a click on a cell."""

from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go

from analyses import theme
from app.views.stack import MapStack, shared_bound

CLICK_POINTS = 30_000
"""Most invisible points laid over a mosaic to take clicks (a heat map's own clicks do not reach Streamlit)."""
TILE = 150
"""Largest side of a map in a mosaic, in pixels."""
SIDES = 140
"""Pixels beside a mosaic for its axis and colour bar."""
MARGIN = {"l": 48, "r": 8, "t": 12, "b": 48}


class Cell(NamedTuple):
    """One value of a stack: a layer, a head, and an offset or position."""

    layer: int
    head: int
    y: int
    x: int


def cell_text(stack: MapStack, cell: Cell) -> str:
    """A cell in words: layer, head and its offset or position."""
    if stack.by_offset:
        return f"Layer {cell.layer}, {stack.column} {cell.head}, offset Δy {cell.y:+d}, Δx {cell.x:+d}"
    if stack.targets is None:
        return f"Layer {cell.layer}, {stack.column} {cell.head}, row {cell.y}, column {cell.x}"
    row, column = stack.targets[cell.head]
    return (
        f"Layer {cell.layer}, target {cell.head} (row {row}, column {column}), source at row {cell.y}, column {cell.x}"
    )


def mosaic(
    stack: MapStack,
    *,
    bound: float | None = None,
    per_head: bool = False,
    first_head: int = 0,
    marked: Cell | None = None,
    width: int = 600,
) -> go.Figure:
    """Every map of a stack in one figure: layers down, heads across, zero in the middle of the colours.

    `bound` is the symmetric colour bound (the stack's own if None). With `per_head` each map is coloured by its
    own largest |value|; hovering still shows the value. `width` is the expected width in pixels, from which the
    height follows. A click selects an invisible point whose customdata is (layer, head, y, x, value).
    """
    rows, columns = stack.frame
    gap = max(1, round(max(rows, columns) / 9))
    canvas = np.full((stack.layers * (rows + gap) - gap, stack.heads * (columns + gap) - gap), np.nan)
    shown = _normalised(stack.values) if per_head else stack.values
    for layer in range(stack.layers):
        for head in range(stack.heads):
            top, left = layer * (rows + gap), head * (columns + gap)
            canvas[top : top + rows, left : left + columns] = shown[layer, head]
    limit = 1.0 if per_head else bound or shared_bound(stack)
    unit = "share of the head's peak" if per_head else stack.unit
    figure = go.Figure(_heatmap(canvas, limit, unit, signed=stack.signed))
    figure.add_trace(_click_points(stack, gap, first_head))
    if marked is not None:
        _outline(figure, stack, gap, first_head, marked)
    tile = min((width - SIDES) / stack.heads, TILE)
    height = int(np.clip(tile * stack.layers * (rows + gap) / (columns + gap), 120, 1200))
    reach = _reach(tile / (columns + gap) * answering(stack))
    theme.layout(figure, height=height + 64, showlegend=False, margin=MARGIN, **reach)
    every = max(1, -(-stack.heads * 34 // width))
    figure.update_xaxes(
        tickvals=[h * (columns + gap) + (columns - 1) / 2 for h in range(0, stack.heads, every)],
        ticktext=[str(first_head + h) for h in range(0, stack.heads, every)],
        title={"text": stack.column, "standoff": 6, "font": {"color": theme.MUTED}},
        constrain="domain",
        constraintoward="left",
        range=[-0.5 - gap / 2, canvas.shape[1] - 0.5 + gap / 2],
        **_BARE,
    )
    figure.update_yaxes(
        tickvals=[n * (rows + gap) + (rows - 1) / 2 for n in range(stack.layers)],
        ticktext=[str(n) for n in range(stack.layers)],
        title={"text": "layer", "standoff": 6, "font": {"color": theme.MUTED}},
        constrain="domain",
        constraintoward="top",
        scaleanchor="x",
        range=[canvas.shape[0] - 0.5 + gap / 2, -0.5 - gap / 2],
        **_BARE,
    )
    return figure


def enlarged(
    stack: MapStack,
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
    values = stack.values[layer, head]
    rows, columns = stack.frame
    ys = [stack.coordinates(row, 0)[0] for row in range(rows)]
    xs = [stack.coordinates(0, column)[1] for column in range(columns)]
    finite = np.abs(values[np.isfinite(values)])
    limit = bound or (float(finite.max()) if finite.size and finite.max() > 0 else 1.0)
    figure = go.Figure(_heatmap(values, limit, stack.unit, xs, ys, signed=stack.signed))
    grid_y, grid_x = np.meshgrid(ys, xs, indexing="ij")
    points = [Cell(layer, head, int(y), int(x)) for y, x in zip(grid_y.flat, grid_x.flat, strict=True)]
    figure.add_trace(_invisible(grid_x.ravel(), grid_y.ravel(), points, values.ravel(), stack))
    if marked is not None and stack.cell(*marked) is not None:
        y, x = marked
        figure.add_shape(
            type="rect", x0=x - 0.5, x1=x + 0.5, y0=y - 0.5, y1=y + 0.5, line={"color": theme.INK, "width": 2.5}
        )
    if stack.targets is not None:
        y, x = stack.targets[head]
        figure.add_annotation(x=x, y=y, text="×", showarrow=False, font={"size": 20, "color": theme.INK})
    theme.layout(figure, height=height, showlegend=False, margin=MARGIN, **_reach(height / rows))
    name = ("Δx (patches)", "Δy (patches)") if stack.by_offset else ("column (patches)", "row (patches)")
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


def answering(stack: MapStack) -> int:
    """Step of the rows and columns of a mosaic that answer a click: 1 up to CLICK_POINTS cells."""
    return max(1, int(np.ceil(np.sqrt(stack.values.size / CLICK_POINTS))))


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


def _click_points(stack: MapStack, gap: int, first_head: int) -> go.Scatter:
    """Invisible points over the cells of a mosaic that answer."""
    rows, columns = stack.frame
    step = answering(stack)
    xs, ys, cells, values = [], [], [], []
    for layer in range(stack.layers):
        for head in range(stack.heads):
            for row in range((rows // 2) % step, rows, step):
                for column in range((columns // 2) % step, columns, step):
                    value = stack.values[layer, head, row, column]
                    if np.isfinite(value):
                        xs.append(head * (columns + gap) + column)
                        ys.append(layer * (rows + gap) + row)
                        cells.append(Cell(layer, first_head + head, *stack.coordinates(row, column)))
                        values.append(value)
    return _invisible(np.array(xs), np.array(ys), cells, np.array(values), stack)


def _invisible(xs: np.ndarray, ys: np.ndarray, cells: list[Cell], values: np.ndarray, stack: MapStack) -> go.Scatter:
    """Points that are not seen but hovered and clicked; customdata is (layer, head, y, x, value).

    They are texts without a word: of markers within 3 pixels of the pointer Plotly takes the last, of texts the
    nearest, and it draws no element for an empty one.
    """
    place = (
        "Δy %{customdata[2]}, Δx %{customdata[3]}"
        if stack.by_offset
        else "row %{customdata[2]}, column %{customdata[3]}"
    )
    return go.Scatter(
        x=xs,
        y=ys,
        mode="text",
        text="",
        customdata=np.column_stack([np.array(cells, float).reshape(-1, len(Cell._fields)), values]),
        hovertemplate=(
            f"layer %{{customdata[0]}}, {stack.column} %{{customdata[1]}}<br>"
            + place
            + "<br><b>%{customdata[4]:.4g}</b><extra></extra>"
        ),
    )


def _outline(figure: go.Figure, stack: MapStack, gap: int, first_head: int, marked: Cell) -> None:
    """Frame the tile of the marked cell."""
    rows, columns = stack.frame
    head = marked.head - first_head
    if not (0 <= head < stack.heads and 0 <= marked.layer < stack.layers):
        return
    left, top = head * (columns + gap) - 0.5, marked.layer * (rows + gap) - 0.5
    figure.add_shape(
        type="rect", x0=left, x1=left + columns, y0=top, y1=top + rows, line={"color": theme.INK, "width": 1.5}
    )
