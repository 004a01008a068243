"""How far and how widely the heads of each layer look, for one or more models."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from analyses import theme
from analyses.locality.figure import layer_traces


def by_layer(series: Sequence[tuple[str, np.ndarray]], *, name: str, height: int = 300) -> go.Figure:
    """A number by layer: a dot for each head and a line through each layer's mean, a colour for each model.

    `series` holds (model, values `layer head`); `name` is the quantity with its unit, for the y axis.
    """
    figure = go.Figure()
    for i, (label, values) in enumerate(series):
        color = theme.SERIES[i % len(theme.SERIES)]
        shift = (i - (len(series) - 1) / 2) * 0.16
        figure.add_traces(layer_traces(label, values, color, shift=shift))
    legend = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "entrywidth": 200}
    theme.layout(theme.axes(figure), height=height, legend=legend, margin={"l": 60, "r": 16, "t": 44, "b": 44})
    figure.update_xaxes(title="layer", dtick=1, showgrid=False, zeroline=False)
    figure.update_yaxes(title=name, rangemode="tozero")
    return figure
