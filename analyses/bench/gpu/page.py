"""gpu_h100.json as a page: the figure's panels by Plotly, with the values under the pointer."""

import math

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analyses.bench.gpu.figure import (
    COLOURS,
    CURVES,
    REACH,
    SIDES,
    TITLES,
    bars,
    colour_of,
    curve,
    dots,
    ratio_ends,
    reach,
    title,
    two_lines,
    words_of,
)
from analyses.bench.gpu.record import PASSES, GPURecord


def page(measured: GPURecord) -> go.Figure:
    """The panels of the figure with the values under the pointer."""
    figure = make_subplots(1, 3, subplot_titles=TITLES, column_widths=[0.3, 0.35, 0.35], horizontal_spacing=0.16)
    found = bars(measured.operators)
    figure.add_trace(
        go.Bar(
            x=[time for _, _, time in found], y=[label for _, label, _ in found], orientation="h", showlegend=False,
            marker_color=[COLOURS.get(operator, "#7f7f7f") for operator, _, _ in found],
            hovertemplate="%{y}: %{x:,.1f} µs<extra></extra>",
        ), 1, 1,
    )  # fmt: skip
    for operator, heads, window in CURVES:
        for (column, words), dash in zip(PASSES.items(), ("dash", "solid"), strict=True):
            sides, times = curve(measured.operators, operator, heads, window, column)
            trace = go.Scatter(
                x=sides, y=times, mode="lines+markers", name=f"{words_of(operator)}, {words}",
                line={"color": COLOURS[operator], "dash": dash},
                hovertemplate="%{x} × %{x}: %{y:.2f} ns a token",
            )  # fmt: skip
            if sides:
                figure.add_trace(trace, 1, 2)
    found_ratios = dots(measured)
    low, high = ratio_ends(found_ratios)
    figure.add_trace(
        go.Scatter(
            x=[ratio for _, ratio in found_ratios], y=[two_lines(comparison, "<br>") for comparison, _ in found_ratios],
            mode="markers", showlegend=False, marker={"size": 11, "color": [colour_of(*dot) for dot in found_ratios]},
            customdata=[comparison.asked for comparison, _ in found_ratios],
            hovertemplate="%{y}: %{x:.3f}, asked for %{customdata}<extra></extra>",
        ), 1, 3,
    )  # fmt: skip
    for place, (comparison, _) in enumerate(found_ratios):
        start, end = reach(comparison, low, high)
        figure.add_shape(
            type="rect", x0=start, x1=end, y0=place - 0.4, y1=place + 0.4, layer="below", line_width=0,
            fillcolor=REACH, row=1, col=3,
        )  # fmt: skip
    figure.update_xaxes(type="log", dtick=1, title="µs", row=1, col=1)
    figure.update_xaxes(type="log", title="side of the grid", tickvals=SIDES, row=1, col=2)
    figure.update_xaxes(type="log", title="ours over theirs", range=[math.log10(low), math.log10(high)], row=1, col=3)
    figure.update_yaxes(autorange="reversed", row=1, col=1)
    figure.update_yaxes(autorange="reversed", tickfont_size=9, row=1, col=3)
    figure.update_yaxes(type="log", dtick=1, title="ns per token", row=1, col=2)
    figure.update_layout(
        title=title(measured), width=1700, height=760, template="plotly_white",
        legend={"orientation": "h", "y": -0.1},
    )  # fmt: skip
    return figure
