"""An image, what the model says of it, and which pixels the prediction rests on."""

from collections.abc import Sequence

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


def probabilities(values: np.ndarray, classes: Sequence[str], *, count: int = 5, height: int = 260) -> go.Figure:
    """The `count` most probable classes as bars in percent."""
    order = np.argsort(values)[::-1][:count][::-1]
    names = [classes[i] if i < len(classes) else str(i) for i in order]
    best = order[-1]
    colors = [theme.SERIES[0] if i == best else "#b9c6d6" for i in order]
    figure = go.Figure(
        go.Bar(
            x=100 * values[order],
            y=names,
            orientation="h",
            marker={"color": colors},
            text=[f"{100 * values[i]:.1f}" for i in order],
            textposition="auto",
            hovertemplate="%{y}: %{x:.2f} %<extra></extra>",
        )
    )
    theme.layout(theme.axes(figure), title="Probability (%)", height=height, bargap=0.25)
    figure.update_layout(margin={"l": 10, "r": 22, "t": 40, "b": 24}, title={"font": {"size": 14}})
    figure.update_xaxes(range=[0, 100], dtick=50)
    figure.update_yaxes(type="category", automargin=True, showgrid=False, tickfont={"color": theme.INK})
    return figure


def _square(figure: go.Figure, title: str, height: int) -> go.Figure:
    """A figure of pixels alone in a thin frame: no axes, no margins beyond the title's."""
    theme.layout(figure, title=title, height=height)
    figure.update_layout(margin={"l": 4, "r": 4, "t": 40, "b": 4}, title={"font": {"size": 14}})
    frame = {"showgrid": False, "zeroline": False, "ticks": "", "showticklabels": False}
    figure.update_xaxes(constrain="domain", showline=True, mirror=True, linecolor=theme.GRID, **frame)
    figure.update_yaxes(constrain="domain", showline=True, mirror=True, linecolor=theme.GRID, **frame)
    return figure
