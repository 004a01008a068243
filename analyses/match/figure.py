"""Matched heads above each other, the likeness by chance, and which layers the pairs join."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator
from plotly.subplots import make_subplots

from aft_lens.later import later
from analyses.maps.picture import COLOURS
from analyses.match.heads import Heads
from analyses.match.matching import Matching
from analyses.provenance import command_line
from analyses.theme import headed

if TYPE_CHECKING:
    import seaborn as sns
else:
    sns = later("seaborn")

NULL_COLOURS = {"moves": "#4c72b0", "rings": "#dd8452"}


def size(matchings: Sequence[Matching], most: int) -> tuple[float, float]:
    """Width and height in inches."""
    return max(8.0, 0.95 * _columns(matchings, most) + 1), 2.5 * len(matchings) + 3.0


def draw(first: Heads, second: Heads, matchings: Sequence[Matching], most: int, figure: Figure | SubFigure) -> None:
    """For each measure its most alike pairs, maps less their mean on a scale of their own; the baselines below."""
    columns = _columns(matchings, most)
    if isinstance(figure, Figure):
        figure.set_layout_engine("constrained", h_pad=0.02, w_pad=0.02, hspace=0.0, wspace=0.0)
    blocks: Any = figure.subfigures(len(matchings) + 1, 1, height_ratios=[*(2.5 for _ in matchings), 3.0])
    for block, matching in zip(blocks, matchings):
        _pairs(block, first, second, matching, columns)
    axes = blocks[-1].subplots(1, len(matchings) + 1)
    for axis, matching in zip(axes, matchings):
        _chance(axis, matching)
    _layers(axes[-1], first, second, matchings[0])


def _columns(matchings: Sequence[Matching], most: int) -> int:
    """Pairs drawn of each measure."""
    return min(most, *(len(matching.pairs) for matching in matchings))


def tile(axis: Axes, values: np.ndarray, *, title: str = "") -> None:
    """One map by offset without ticks, on its own scale with 0 in the middle of the colours."""
    limit = float(np.abs(values).max()) or 1.0
    axis.imshow(values, cmap=COLOURS, vmin=-limit, vmax=limit, interpolation="nearest")
    axis.plot(values.shape[1] // 2, values.shape[0] // 2, marker="+", color="0.35", ms=4, mew=0.7)
    axis.set_xticks([])
    axis.set_yticks([])
    if title:
        axis.set_title(title, fontsize=7, pad=2)


def _pairs(block: SubFigure, first: Heads, second: Heads, matching: Matching, columns: int) -> None:
    block.suptitle(
        f"Most alike by {_axis(matching)}, below each pair; above each map its layer.head, + the target", fontsize=9
    )
    axes = block.subplots(2, columns, squeeze=False)
    for (i, j), score, column in zip(matching.pairs, matching.scores, axes.T):
        tile(column[0], first.maps[i] - first.maps[i].mean(), title=_name(first, i))
        tile(column[1], second.maps[j] - second.maps[j].mean(), title=_name(second, j))
        column[1].set_xlabel(f"{score:.2f}", fontsize=8)
    for axis, heads in zip(axes[:, 0], (first, second)):
        axis.set_ylabel(heads.label, fontsize=8)


def _chance(axis: Axes, matching: Matching) -> None:
    for one in matching.baselines:
        label = f"{one.null}, p = {one.p_value:.2g}"
        axis.hist(one.draws, bins=25, alpha=0.55, color=NULL_COLOURS[one.null], label=label)
    axis.axvline(matching.mean, color="k", lw=1.5, label="these models")
    axis.set(xlabel=f"{_axis(matching)}, mean of the pairs", ylabel="draws")
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.set_ylim(top=axis.get_ylim()[1] * 1.45)
    axis.legend(frameon=False, fontsize=7, loc="upper center")
    sns.despine(ax=axis)


def _layers(axis: Axes, first: Heads, second: Heads, matching: Matching) -> None:
    count = layer_counts(first, second, matching)
    sns.heatmap(count, ax=axis, cmap="Blues", annot=max(count.shape) <= 12, fmt="d", cbar=False, square=True, lw=0.5)
    axis.set_xlabel(f"layer of {second.label}", fontsize=8)
    axis.set_ylabel(f"layer of {first.label}", fontsize=8)
    axis.set_title(f"pairs by {matching.measure}", fontsize=8)


def layer_counts(first: Heads, second: Heads, matching: Matching) -> np.ndarray:
    """How many pairs join a layer of the first model (rows) with one of the second."""
    count = np.zeros((first.shape[0], second.shape[0]), dtype=int)
    for i, j in matching.pairs:
        count[first.places[i][0], second.places[j][0]] += 1
    return count


def interactive(first: Heads, second: Heads, matchings: Sequence[Matching], most: int) -> go.Figure:
    """The pairs of every measure, coloured about each map's mean, with offset and weight under the pointer."""
    columns = _columns(matchings, most)
    titles = []
    for matching in matchings:
        chosen = list(zip(matching.pairs, matching.scores))[:columns]
        titles += [f"{_name(first, i)}" for (i, _), _ in chosen]
        titles += [f"{_name(second, j)}: {score:.2f}" for (_, j), score in chosen]
    figure = make_subplots(2 * len(matchings), columns, subplot_titles=titles, horizontal_spacing=0.008,
                           vertical_spacing=0.05)  # fmt: skip
    for number, matching in enumerate(matchings):
        for column, pair in enumerate(matching.pairs[:columns]):
            for row, (heads, index) in enumerate(zip((first, second), pair)):
                text = f"{heads.label} {_name(heads, index)}"
                figure.add_trace(heat(heads.maps[index], text), 2 * number + row + 1, column + 1)
        for row, heads in enumerate((first, second), 2 * number + 1):
            figure.update_yaxes(title=heads.label, row=row, col=1)
    bare(figure)
    means = "; ".join(
        f"mean {m.measure} {m.mean:.3f}, " + ", ".join(f"p({one.null}) {one.p_value:.2g}" for one in m.baselines)
        for m in matchings
    )
    figure.update_layout(margin={"l": 50, "r": 20, "b": 20})
    title = f"{first.label} above {second.label}; above each map its layer.head, and the likeness of the pair"
    return headed(figure, title, [means, command_line()], 120 + 105 * columns, 250 * len(matchings))


def bare(figure: go.Figure) -> None:
    """No ticks or grid, rows downwards, small titles."""
    figure.update_xaxes(showticklabels=False, showgrid=False, zeroline=False)
    figure.update_yaxes(showticklabels=False, showgrid=False, zeroline=False, autorange="reversed", title_font_size=11)
    figure.update_annotations(font_size=10)


def heat(values: np.ndarray, text: str) -> go.Heatmap:
    """A map by offset on its own scale about its mean, with its values under the pointer."""
    y, x = (np.arange(side) - side // 2 for side in values.shape)
    mean = float(values.mean())
    limit = float(np.abs(values - mean).max()) or 1.0
    hover = f"{text}<br>Δy %{{y}}, Δx %{{x}}<br>%{{z:.4g}}<extra></extra>"
    return go.Heatmap(
        z=values,
        x=x,
        y=y,
        zmin=mean - limit,
        zmax=mean + limit,
        colorscale="RdBu_r",
        showscale=False,
        hovertemplate=hover,
    )


def _axis(matching: Matching) -> str:
    return matching.measure if matching.measure == "correlation" else f"{matching.measure} (patches)"


def _name(heads: Heads, index: int) -> str:
    layer, head = heads.places[index]
    return f"{layer}.{head}"
