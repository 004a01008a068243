"""The question as one result: fractions by head, effects of single edits, and curves of cumulative ones."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int
from matplotlib.figure import Figure, SubFigure

from analyses.explain.causal import Effect, Outcome
from analyses.explain.figure import Curve, Drawing, Panel, draw, interactive, size
from analyses.explain.position import HeadPositions
from analyses.provenance import environment
from analyses.result import Result, Table, mean_cell

WORDS = {
    "map": "own map",
    "uniform": "uniform",
    "other": "next head's map",
    "window": "own map in the window",
    "no bias": "w = 0",
    "no offset": "strongest offset's w = 0",
    "no keys": "K = 0",
}
"""Edits as figures and tables name them."""


@dataclass(frozen=True)
class Explanation(Result):
    """Whether position explains each head of a model: by the numbers, and by what edits do."""

    name = "explain"

    source: str
    positions: HeadPositions
    intact: Outcome
    single: dict[str, list[list[Effect]]]
    """By edit, layer and head: that one head edited."""
    order: Int[np.ndarray, "step 2"]
    """(layer, head) by rising damage of the head's own map in the calibration images' loss."""
    counts: tuple[int, ...]
    """How many heads, the first ones of `order`, are replaced at each point of the curves."""
    cumulative: dict[str, list[Effect]]
    """By edit: those heads at once."""
    window: int
    """Side of the "window" replacement, in patches."""
    layers: tuple[int, ...]
    """Layers whose heads were edited: the rows of `single`."""
    labels: str
    """"data", or "model": accuracy is agreement with the intact model."""
    device: str
    """What it was measured on."""
    data: str = ""
    """Name of the images' data set."""

    def values(self, edit: str, field: str) -> Float[np.ndarray, "layer head"]:
        """One number of every single-head effect: accuracy, change or loss."""
        return np.array([[getattr(effect, field) for effect in row] for row in self.single[edit]])

    @property
    def size(self) -> tuple[float, float]:  # type: ignore[override]
        """As many panels as there are edits."""
        return size(self.drawing())

    def plot(self, figure: Figure | SubFigure) -> None:
        """Fractions and curves above, the effects of single edits below."""
        draw(self.drawing(), figure)

    def interactive(self) -> go.Figure:
        """The same with every value and interval under the pointer."""
        return interactive(self.drawing())

    def table(self) -> Table:
        """Definitions, a row for each layer, and the end of each curve."""
        low, high = self.intact.interval
        images = f"{self.positions.images} training images; {len(self.intact.right)} test images"
        lines = [
            f"{self.source}{self.data and f' on {self.data}'}: maps from {images}",
            f"intact {'agreement' if self.labels == 'model' else 'accuracy'} {100 * self.intact.accuracy:.2f} % "
            f"[{100 * low:.2f}, {100 * high:.2f}]; intervals 95 %, changes paired by image",
            "explained by offset alone, mean of the layer's heads: of the variance about uniform (0 to 1), and of the",
            "information KL(attention || uniform); then the head whose edit costs most: change of accuracy (points) /",
            "of loss (nats)",
        ]
        rows = [
            [
                str(layer),
                *(
                    mean_cell(values[layer].numpy(), 3)
                    for values in (self.positions.variance, self.positions.divergence)
                ),
                *(self._worst(edit, layer) for edit in self.single),
            ]
            for layer in range(len(self.positions.maps))
        ]
        ends = [
            f"  {WORDS[edit]:<24} {100 * row[-1].change:+.2f} "
            f"[{100 * row[-1].interval[0]:+.2f}, {100 * row[-1].interval[1]:+.2f}]"
            for edit, row in self.cumulative.items()
        ]
        note = [f"all {self.counts[-1]} heads at once, change of accuracy (points):", *ends]
        columns = ["layer", "variance", "information", *(WORDS[edit] for edit in self.single)]
        return Table(columns, rows, "\n".join(lines), "\n".join(note))

    def _worst(self, edit: str, layer: int) -> str:
        """Accuracy and loss change of the head whose edit costs the most loss."""
        if layer not in self.layers:
            return "-"
        worst = max(self.single[edit][self.layers.index(layer)], key=lambda effect: effect.loss)
        return f"{100 * worst.change:+.2f} / {worst.loss:+.4f}"

    def drawing(self) -> Drawing:
        """The figure's content."""
        whole = range(len(self.positions.maps))
        fractions = [
            Panel(title, values.numpy(), values.numpy(), _fraction_words(values.numpy()), whole)
            for title, values in (
                ("variance explained by offset", self.positions.variance),
                ("information explained by offset", self.positions.divergence),
            )
        ]
        effects = [
            Panel(
                WORDS[edit], self.values(edit, "loss"),
                100 * self.values(edit, "change"), [[_words(effect) for effect in row] for row in rows], self.layers,
            )
            for edit, rows in self.single.items()
        ]  # fmt: skip
        curves = [
            Curve(
                WORDS[edit], [100 * effect.change for effect in row], [100 * effect.interval[0] for effect in row],
                [100 * effect.interval[1] for effect in row],
            )
            for edit, row in self.cumulative.items()
        ]  # fmt: skip
        title = (
            f"{self.source}: {100 * self.intact.accuracy:.1f} % of {len(self.intact.right)} images intact"
            + (" (agreement with itself)" if self.labels == "model" else "")
        )  # fmt: skip
        return Drawing(title, fractions, effects, self.counts, curves)

    def record(self) -> dict[str, Any]:
        """Everything measured."""
        return {
            "source": self.source,
            "data": self.data,
            **environment(self.device),
            "grid": self.positions.grid,
            "window": self.window,
            "layers": self.layers,
            "labels": self.labels,
            "calibration_images": self.positions.images,
            "images": len(self.intact.right),
            "accuracy": self.intact.accuracy,
            "accuracy_interval": self.intact.interval,
            "variance_explained": self.positions.variance,
            "divergence_explained": self.positions.divergence,
            "information_nats": self.positions.information,
            "to_patches": 1 - self.positions.columns.sum(-1),
            "single": self.single,
            "order": self.order,
            "counts": self.counts,
            "cumulative": self.cumulative,
            "maps": self.positions.maps,
        }


def _fraction_words(values: np.ndarray) -> list[list[str]]:
    """A fraction under the pointer."""
    return [
        [f"layer {layer}, head {head}<br>{value:.4f}" for head, value in enumerate(row)]
        for layer, row in enumerate(values)
    ]


def _words(effect: Effect) -> str:
    """An effect under the pointer."""
    return (
        f"accuracy {100 * effect.change:+.2f} points "
        f"[{100 * effect.interval[0]:+.2f}, {100 * effect.interval[1]:+.2f}]<br>"
        f"loss {effect.loss:+.4f} nats [{effect.loss_interval[0]:+.4f}, {effect.loss_interval[1]:+.4f}]"
    )
