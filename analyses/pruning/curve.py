"""Accuracy against offsets kept: several criteria and k of one model on the same images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from matplotlib.figure import Figure, SubFigure

from aft_lens.models import VisionModel
from aft_lens.progress import progress
from aft_lens.statistics import paired_proportions, wilson
from analyses import theme
from analyses.pruning.criteria import CRITERIA, score
from analyses.pruning.cutting.compact import masked_model
from analyses.pruning.cutting.masks import select
from analyses.pruning.measuring.cost import Batches, predict
from analyses.result import Result, Table


@dataclass(frozen=True)
class CurvePoint:
    """One criterion at one k."""

    criterion: str
    keep: int
    """Offsets a head."""
    accuracy: float
    change: float
    """Less the parent's on the same images."""
    interval: tuple[float, float]
    """95 % of the change, paired by image."""


@dataclass(frozen=True)
class PruneCurve(Result):
    """The points of a model, in the order in which they were measured."""

    name = "curve"
    size = (7.0, 3.6)

    source: str
    data: str
    images: int
    calibration: int
    """Images, none of them tested on, that measured criteria were computed on."""
    parent: float
    """Accuracy of the whole model."""
    parent_interval: tuple[float, float]
    points: tuple[CurvePoint, ...]

    def record(self) -> dict[str, Any]:
        """Every point."""
        return {
            "source": self.source, "data": self.data, "images": self.images, "calibration_images": self.calibration,
            "parent_accuracy": self.parent, "parent_interval": self.parent_interval, "points": self.points,
        }  # fmt: skip

    def table(self) -> Table:
        """A point a row."""
        rows = [
            [point.criterion, str(point.keep), f"{100 * point.accuracy:.2f}",
             f"{100 * point.change:+.2f} [{100 * point.interval[0]:+.2f}, {100 * point.interval[1]:+.2f}]"]
            for point in self.points
        ]  # fmt: skip
        low, high = (100 * end for end in self.parent_interval)
        title = (
            f"{self.source} on {self.images} test images of {self.data}: whole {100 * self.parent:.2f} % [{low:.2f}, "
            f"{high:.2f}]; changes are paired by image, criteria computed on {self.calibration} other images"
        )
        return Table(["kept by", "k", "accuracy %", "change (points) [95 %]"], rows, title, words=1)

    def series(self) -> dict[str, list[CurvePoint]]:
        """The points of each criterion, by k."""
        names = dict.fromkeys(point.criterion for point in self.points)
        return {
            name: sorted((point for point in self.points if point.criterion == name), key=lambda point: point.keep)
            for name in names
        }

    def plot(self, figure: Figure | SubFigure) -> None:
        """A line a criterion, controls dashed, the parent's accuracy across."""
        axis = figure.subplots()
        for number, (name, points) in enumerate(self.series().items()):
            keeps, values, below, above = _drawn(points)
            style = "--" if CRITERIA[name].control else "-"
            axis.errorbar(
                keeps, values, yerr=[below, above], fmt=f"o{style}", ms=3, capsize=2, label=name,
                color=theme.SERIES[number % len(theme.SERIES)],
            )  # fmt: skip
        axis.axhline(100 * self.parent, color="#66727f", lw=0.8)
        axis.set_xscale("symlog", base=2, linthresh=1)
        axis.set(xlabel="offsets kept a head (k)", ylabel="test accuracy (%)")
        axis.legend(frameon=False, fontsize=8)

    def interactive(self) -> go.Figure:
        """The same with values under the pointer."""
        figure = go.Figure()
        keeps = sorted({point.keep for point in self.points})
        place = {keep: number for number, keep in enumerate(keeps)}
        for number, (name, points) in enumerate(self.series().items()):
            _, values, below, above = _drawn(points)
            figure.add_trace(
                go.Scatter(
                    x=[place[point.keep] for point in points], y=values, name=name, mode="lines+markers",
                    error_y={"array": above, "arrayminus": below, "thickness": 1},
                    line={"color": theme.SERIES[number % len(theme.SERIES)],
                          "dash": "dash" if CRITERIA[name].control else "solid"},
                    hovertemplate="%{y:.2f} %<extra>" + name + "</extra>",
                )
            )  # fmt: skip
        figure.add_hline(100 * self.parent, line={"color": theme.MUTED, "width": 1, "dash": "dot"})
        theme.layout(
            theme.axes(figure), height=380, legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}
        )
        figure.update_xaxes(
            title="offsets kept a head (k)", tickvals=list(place.values()), ticktext=list(map(str, place))
        )
        return figure.update_yaxes(title="test accuracy (%)")


def _drawn(points: Sequence[CurvePoint]) -> tuple[list[int], list[float], list[float], list[float]]:
    """k, accuracy in percent, and how far the interval of the change reaches below and above."""
    return (
        [point.keep for point in points], [100 * point.accuracy for point in points],
        [100 * (point.change - point.interval[0]) for point in points],
        [100 * (point.interval[1] - point.change) for point in points],
    )  # fmt: skip


@torch.inference_mode(False)
def prune_curve(
    model: VisionModel,
    test: Batches,
    calibration: Batches,
    *,
    criteria: Sequence[str],
    keeps: Sequence[int],
    source: str = "model",
    data: str = "",
    seed: int = 0,
    each: Callable[[PruneCurve], None] = lambda curve: None,
) -> PruneCurve:
    """Mask a model to its best `keeps` offsets a head by each of `criteria`, and classify `test` each time.

    Scores come from `calibration`, which shares no image with `test`; a criterion scores once for all k. `each` is
    called with what there is after each point. Masked and indexed models have the same outputs (`check_agreement`), so
    the faster one is run. Raises as `score` and `select` do, and ValueError without criteria or k.
    """
    if not criteria or not keeps:
        raise ValueError(f"criteria and keeps must not be empty, got {[*criteria]} and {[*keeps]}")
    logits, labels = predict(model, test)
    right = (logits.argmax(1) == labels).numpy()
    count, shown = len(labels), sum(len(batch) for batch, _ in calibration)
    parent, interval = float(right.mean()), wilson(int(right.sum()), count)
    points: list[CurvePoint] = []

    def so_far() -> PruneCurve:
        return PruneCurve(source, data, count, shown, parent, interval, tuple(points))

    scores: dict[str, list[torch.Tensor]] = {}
    for name, keep in progress([(name, keep) for name in criteria for keep in keeps], "points", patience=0.0):
        if name not in scores:
            scores[name] = score(model, name, calibration, seed=seed)
        found, _ = predict(masked_model(model, select(scores[name], keep)), test)
        now = (found.argmax(1) == labels).numpy()
        low, high = paired_proportions(right, now)
        points.append(CurvePoint(name, keep, float(now.mean()), float(np.mean(now) - np.mean(right)), (low, high)))
        each(so_far())
    return so_far()
