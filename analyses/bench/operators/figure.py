"""Time and memory over length, log-log, by matplotlib and by Plotly."""

from collections.abc import Iterator, Mapping, Sequence

import plotly.graph_objects as go
import seaborn as sns
from matplotlib.figure import Figure, SubFigure
from plotly.subplots import make_subplots

from analyses.bench.operators.measure import exponent
from analyses.bench.operators.record import CurvePoint
from analyses.theme import axes, layout

PANELS = (("ms", "forward + backward, ms"), ("peak_mib", "peak memory above the inputs, MiB"))
Colour = tuple[float, float, float]


def draw(figure: Figure | SubFigure, curves: Mapping[str, Sequence[CurvePoint]]) -> None:
    """Draw every curve's `ms` and `peak_mib` over `length`, with fitted exponents."""
    with sns.axes_style("whitegrid"), sns.plotting_context("paper"):
        panels = figure.subplots(1, 2)
        for curve, lengths, colour, dashed in _lines(curves):
            for axis, (field, _) in zip(panels, PANELS, strict=True):
                values = [getattr(point, field) for point in curves[curve]]
                label = f"{curve.replace('_', ' ')}  $T^{{{exponent(lengths, values):.2f}}}$"
                axis.loglog(lengths, values, marker="o", ls="--" if dashed else "-", color=colour, label=label)
        for axis, (_, label) in zip(panels, PANELS, strict=True):
            axis.set(xlabel="length T", ylabel=label)
            axis.legend(fontsize=6.5, loc="upper left", title="fitted exponent", title_fontsize=7)


def page(curves: Mapping[str, Sequence[CurvePoint]]) -> go.Figure:
    """The same with the values under the pointer."""
    figure = make_subplots(rows=1, cols=2, subplot_titles=[label for _, label in PANELS])
    for curve, lengths, colour, dashed in _lines(curves):
        line = {"color": "rgb({},{},{})".format(*(round(255 * c) for c in colour)),
                "dash": "dash" if dashed else "solid"}  # fmt: skip
        for column, (field, _) in enumerate(PANELS):
            trace = go.Scatter(
                x=lengths, y=[getattr(point, field) for point in curves[curve]], name=curve.replace("_", " "),
                legendgroup=curve, showlegend=column == 0, mode="lines+markers", line=line,
            )  # fmt: skip
            figure.add_trace(trace, row=1, col=column + 1)
    figure.update_xaxes(type="log", title="length T")
    figure.update_yaxes(type="log")
    return layout(axes(figure), height=560, margin={"l": 60, "r": 16, "t": 32, "b": 44})


def _lines(curves: Mapping[str, Sequence[CurvePoint]]) -> Iterator[tuple[str, list[int], Colour, bool]]:
    """Each curve's name, lengths, colour, and whether it is dashed, as what is not ours is."""
    for colour, (curve, points) in zip(sns.color_palette("husl", len(curves)), curves.items(), strict=True):
        dashed = "attention" in curve or curve.startswith(("aft_pytorch", "labml"))
        yield curve, [point.length for point in points], colour, dashed
