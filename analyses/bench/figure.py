"""Time and memory over length, log-log, as PNG, SVG and a stand-alone page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import plotly.graph_objects as go
import seaborn as sns
from plotly.subplots import make_subplots

from analyses.bench.measure import exponent

PANELS = (("ms", "forward + backward, ms"), ("peak_mib", "peak memory above the inputs, MiB"))


def draw_curves(curves: Mapping[str, Sequence[dict[str, Any]]], out: Path, name: str) -> list[Path]:
    """Draw every curve's `ms` and `peak_mib` over `length`, with fitted exponents, into `out`; returns the files."""
    sns.set_theme(style="whitegrid", context="paper")
    figure, axes = plt.subplots(1, 2, figsize=(11, 5.5), layout="constrained")
    page = make_subplots(rows=1, cols=2, subplot_titles=[label for _, label in PANELS])
    colours = sns.color_palette("husl", len(curves))
    for colour, (curve, points) in zip(colours, curves.items(), strict=True):
        lengths = [point["length"] for point in points]
        dashed = "attention" in curve or curve.startswith(("aft_pytorch", "labml"))
        for column, (field, _) in enumerate(PANELS):
            values = [point[field] for point in points]
            label = f"{curve.replace('_', ' ')}  $T^{{{exponent(lengths, values):.2f}}}$"
            axes[column].loglog(lengths, values, marker="o", ls="--" if dashed else "-", color=colour, label=label)
            trace = go.Scatter(
                x=lengths, y=values, name=curve.replace("_", " "), legendgroup=curve, showlegend=column == 0,
                mode="lines+markers",
                line={"color": "rgb({},{},{})".format(*(round(255 * c) for c in colour)),
                      "dash": "dash" if dashed else "solid"},
            )  # fmt: skip
            page.add_trace(trace, row=1, col=column + 1)
    for axis, (_, label) in zip(axes, PANELS, strict=True):
        axis.set(xlabel="length T", ylabel=label)
        axis.legend(fontsize=6.5, loc="upper left", title="fitted exponent", title_fontsize=7)
    page.update_xaxes(type="log", title="length T")
    page.update_yaxes(type="log")
    paths = [out / f"{name}.{kind}" for kind in ("png", "svg", "html")]
    figure.savefig(paths[0], dpi=160)
    figure.savefig(paths[1], metadata={"Date": None})
    plt.close(figure)
    page.write_html(paths[2], include_plotlyjs=True)
    return paths
