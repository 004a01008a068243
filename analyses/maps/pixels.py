"""Figures of an image's pixels: the image itself, and a value of each pixel."""

import numpy as np
import plotly.graph_objects as go

from analyses import theme


def picture(image: np.ndarray, title: str, *, height: int = 260) -> go.Figure:
    """An image `y x` or `y x c` in 0..1, each pixel drawn as it is."""
    pixels = np.repeat(image[..., None], 3, 2) if image.ndim == 2 else image
    figure = go.Figure(go.Image(z=np.uint8(np.clip(255 * pixels, 0, 255)), hoverinfo="skip"))
    return _square(figure, title, height)


def attribution(values: np.ndarray, title: str, *, height: int = 260) -> go.Figure:
    """An attribution `y x`: red pixels speak for the prediction, blue ones against it, zero in the middle."""
    limit = float(np.abs(values).max()) or 1.0
    heat = go.Heatmap(
        z=values,
        zmin=-limit,
        zmax=limit,
        colorscale=theme.DIVERGING,
        showscale=False,
        hovertemplate="row %{y}, column %{x}<br><b>%{z:.3g}</b><extra></extra>",
    )
    figure = _square(go.Figure(heat), title, height)
    figure.update_yaxes(autorange="reversed", scaleanchor="x", constrain="domain")
    return figure


def _square(figure: go.Figure, title: str, height: int) -> go.Figure:
    """A figure of pixels alone in a thin frame: no axes, no margins beyond the title's."""
    theme.layout(figure, title=title, height=height)
    figure.update_layout(margin={"l": 4, "r": 4, "t": 40, "b": 4}, title={"font": {"size": 14}})
    frame = {"showgrid": False, "zeroline": False, "ticks": "", "showticklabels": False}
    figure.update_xaxes(constrain="domain", showline=True, mirror=True, linecolor=theme.GRID, **frame)
    figure.update_yaxes(constrain="domain", showline=True, mirror=True, linecolor=theme.GRID, **frame)
    return figure
