"""What a model says of an image."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from analyses import theme


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
