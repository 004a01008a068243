"""Locality by layer: one panel a metric, a colour a model, hollow marks for its random-weight control."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from plotly.subplots import make_subplots

from aft_lens.later import later
from analyses.locality.metrics import METRICS, HeadLocality, layer_means
from analyses.provenance import command_line
from analyses.theme import headed

if TYPE_CHECKING:
    import seaborn as sns
else:
    sns = later("seaborn")

PANELS = ("distance", "relative", "near", "effective", "symmetry")
"""Metrics drawn by layer; the peaks have a panel of their own."""


SIZE = (11.0, 6.2)


def draw(series: Sequence[HeadLocality], radius: float, figure: Figure | SubFigure) -> None:
    """Dots are heads, lines layer means with 95 % bars over images, dotted lines the uniform map."""
    axes = figure.subplots(2, 3)
    colours = _colours(series)
    for axis, key in zip(axes.flat, PANELS):
        for number, one in enumerate(series):
            _panel(axis, one, key, colours[one.label], (number - (len(series) - 1) / 2) * 0.7 / len(series))
        axis.set(xlabel="layer", ylabel=_axis(key, radius))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if key == "symmetry":
            axis.axhline(0, color="0.6", lw=0.7)
        elif key == "effective":
            axis.set(yscale="log", ylim=(0.8, None))
        else:
            axis.set_ylim(bottom=0)
    _peaks(axes.flat[-1], series, colours)
    for axis in axes.flat:
        sns.despine(ax=axis)
    handles = [Line2D([], [], color=colour, marker="o", label=name) for name, colour in colours.items()]
    if any(one.control for one in series):
        handles.append(Line2D([], [], color="0.3", marker="o", ls="--", mfc="white", label="random weights"))
    handles.append(Line2D([], [], color="0.3", ls=":", label="uniform map of the same frame"))
    figure.legend(handles=handles, loc="outside upper center", ncols=min(4, len(handles)), frameon=False, fontsize=9)


def _panel(axis: Axes, one: HeadLocality, key: str, colour: str, shift: float) -> None:
    values = one.values[key]
    layers, heads = values.shape
    place = np.arange(layers) + shift
    face = "none" if one.control else colour
    axis.scatter(np.repeat(place, heads), values.ravel(), s=9, facecolors=face, edgecolors=colour, lw=0.5, alpha=0.4)
    mean = layer_means(values)
    bars = None if one.layer_interval is None else np.maximum(np.abs(one.layer_interval[key] - mean), 0)
    axis.errorbar(
        place, mean, yerr=bars, color=colour, ls="--" if one.control else "-", marker="o", ms=5, capsize=2, lw=1.4,
        mfc="white" if one.control else colour,
    )  # fmt: skip
    if np.isfinite(one.uniform[key]):
        axis.axhline(one.uniform[key], color=colour, ls=":", lw=1.2)


def _peaks(axis: Axes, series: Sequence[HeadLocality], colours: dict[str, str]) -> None:
    """Where the heads peak (random weights only where they are alone): more heads at an offset, a larger mark."""
    most = 1.0
    for one in series:
        if one.control and any(other.label == one.label and not other.control for other in series):
            continue
        peaks = np.stack([one.values["peak_x"].ravel(), one.values["peak_y"].ravel()], 1)
        place, count = np.unique(peaks[np.isfinite(peaks).all(1)], axis=0, return_counts=True)
        share = count / max(1, count.sum())
        axis.scatter(
            place[:, 0], place[:, 1], s=15 + 600 * share, facecolors="none", edgecolors=colours[one.label], lw=1.5
        )
        most = max(most, float(np.abs(place).max(initial=0)))
    axis.axhline(0, color="0.85", lw=0.7, zorder=0)
    axis.axvline(0, color="0.85", lw=0.7, zorder=0)
    edge = most + 0.6
    axis.set(xlim=(-edge, edge), ylim=(edge, -edge), aspect="equal", xlabel="Δx of the peak (patches)",
             ylabel="Δy of the peak (patches)")  # fmt: skip


def interactive(series: Sequence[HeadLocality], radius: float) -> go.Figure:
    """The same panels with layer, head and value under the pointer."""
    titles = [*(_axis(key, radius) for key in PANELS), "peak offset (patches)"]
    figure = make_subplots(2, 3, subplot_titles=titles, horizontal_spacing=0.07, vertical_spacing=0.18)
    colours = _colours(series)
    for number, one in enumerate(series):
        shift = (number - (len(series) - 1) / 2) * 0.7 / len(series)
        for panel, key in enumerate(PANELS):
            for trace in layer_traces(one.name, one.values[key], colours[one.label], shift=shift, hollow=one.control):
                trace.update(showlegend=panel == 0 and trace.mode != "markers", legendgroup=one.name)
                figure.add_trace(trace, panel // 3 + 1, panel % 3 + 1)
            if np.isfinite(one.uniform[key]):
                figure.add_hline(
                    one.uniform[key], row=panel // 3 + 1, col=panel % 3 + 1, line_dash="dot", line_width=1,
                    line_color=colours[one.label],
                )  # fmt: skip
        y, x = one.values["peak_y"], one.values["peak_x"]
        layer, head = np.indices(y.shape)
        text = "layer %{customdata[0]}, head %{customdata[1]}<br>Δy %{y}, Δx %{x}<extra>" + one.name + "</extra>"
        marks = go.Scatter(
            x=x.ravel(), y=y.ravel(), mode="markers", customdata=np.stack([layer.ravel(), head.ravel()], 1),
            marker={"color": colours[one.label], "size": 9, "opacity": 0.5,
                    "symbol": "circle-open" if one.control else "circle"},
            hovertemplate=text, showlegend=False, legendgroup=one.name,
        )  # fmt: skip
        figure.add_trace(marks, 2, 3)
    figure.update_xaxes(title="layer")
    figure.update_xaxes(title="Δx", row=2, col=3)
    figure.update_yaxes(title="Δy", row=2, col=3)
    figure.update_yaxes(type="log", row=2, col=1)
    figure.update_yaxes(rangemode="tozero", row=2, col=2)
    figure.update_yaxes(autorange="reversed", row=2, col=3)
    figure.update_layout(template="plotly_white", legend={"orientation": "h", "y": -0.12})
    return headed(figure, "Locality of heads; dotted: the uniform map", [command_line()], 1180, 680)


def layer_traces(
    label: str, values: np.ndarray, colour: str, *, shift: float = 0.0, hollow: bool = False
) -> list[go.Scatter]:
    """A number by layer: a dot for each head, and a line through each layer's mean."""
    layers, heads = values.shape
    dots = go.Scatter(
        x=np.repeat(np.arange(layers), heads) + shift,
        y=values.ravel(),
        mode="markers",
        marker={"color": colour, "size": 6, "opacity": 0.35, "symbol": "circle-open" if hollow else "circle"},
        customdata=np.stack([np.repeat(np.arange(layers), heads), np.tile(np.arange(heads), layers)], 1),
        hovertemplate="layer %{customdata[0]}, head %{customdata[1]}<br>%{y:.3g}<extra>" + label + "</extra>",
        showlegend=False,
    )
    line = go.Scatter(
        x=np.arange(layers) + shift,
        y=layer_means(values),
        mode="lines+markers",
        line={"color": colour, "width": 2, "dash": "dash" if hollow else "solid"},
        marker={"size": 8, "color": colour, "symbol": "circle-open" if hollow else "circle"},
        name=label,
        hovertemplate="layer mean %{y:.3g}<extra>" + label + "</extra>",
    )
    return [dots, line]


def _colours(series: Sequence[HeadLocality]) -> dict[str, str]:
    """One colour a model; its control has the same."""
    own = dict.fromkeys(one.label for one in series)
    return dict(zip(own, sns.color_palette("colorblind").as_hex() * len(own)))


def _axis(key: str, radius: float) -> str:
    metric = next(metric for metric in METRICS if metric.key == key)
    return f"mass within {radius:g} patches" if key == "near" else f"{metric.name} ({metric.unit})"
