"""How far and how widely the heads of each layer look, for one or more models."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from app.views import theme


def by_layer(series: Sequence[tuple[str, np.ndarray]], *, name: str, height: int = 300) -> go.Figure:
    """A number by layer: a dot for each head and a line through each layer's mean, a colour for each model.

    `series` holds (model, values `layer head`); `name` is the quantity with its unit, for the y axis.
    """
    figure = go.Figure()
    for i, (label, values) in enumerate(series):
        color = theme.SERIES[i % len(theme.SERIES)]
        layers, heads = values.shape
        known = np.isfinite(values)
        mean = np.where(known, values, 0.0).sum(1) / np.where(known.any(1), known.sum(1), np.nan)
        shift = (i - (len(series) - 1) / 2) * 0.16
        figure.add_trace(
            go.Scatter(
                x=np.repeat(np.arange(layers), heads) + shift,
                y=values.ravel(),
                mode="markers",
                marker={"color": color, "size": 6, "opacity": 0.35},
                customdata=np.stack([np.repeat(np.arange(layers), heads), np.tile(np.arange(heads), layers)], 1),
                hovertemplate="layer %{customdata[0]}, head %{customdata[1]}<br>%{y:.3g}<extra>" + label + "</extra>",
                showlegend=False,
            )
        )
        figure.add_trace(
            go.Scatter(
                x=np.arange(layers) + shift,
                y=mean,
                mode="lines+markers",
                line={"color": color, "width": 2},
                marker={"size": 8, "color": color},
                name=label,
                hovertemplate="layer mean %{y:.3g}<extra>" + label + "</extra>",
            )
        )
    legend = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "entrywidth": 200}
    theme.layout(theme.axes(figure), height=height, legend=legend, margin={"l": 60, "r": 16, "t": 44, "b": 44})
    figure.update_xaxes(title="layer", dtick=1, showgrid=False, zeroline=False)
    figure.update_yaxes(title=name, rangemode="tozero")
    return figure
