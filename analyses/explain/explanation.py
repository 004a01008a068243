"""The question as one result: fractions by head, effects of single edits, and curves of cumulative ones."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int
from matplotlib.figure import Figure, SubFigure

from analyses.explain.causal import Effect, Outcome
from analyses.explain.figure import Curve, Drawing, Panel, draw, interactive, size
from analyses.explain.plan import Plan
from analyses.explain.position import HeadPositions
from analyses.explain.probe import Probe
from analyses.provenance import environment
from analyses.result import Result, Table, mean_cell

WORDS = {
    "map": "own map",
    "uniform": "uniform",
    "other": "next head's map",
    "window": "own map in the window",
    "offset": "one offset",
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
    """By edit, layer of the plan and head: that one head edited. Empty where the plan has no single edits."""
    order: Int[np.ndarray, "step 2"]
    """(layer, head) by rising damage of the head's own map in the calibration images' loss; without single edits by
    falling share of the variance that offsets explain."""
    cumulative: dict[str, list[Effect]]
    """By edit: as many heads at once, the first ones of `order`, as the plan's counts say."""
    plan: Plan
    device: str
    """What it was measured on."""
    probe: Probe | None = None
    """The classifier, where it is not the model's own."""

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
            f"{self.source}{self.plan.data and f' on {self.plan.data}'}: maps from {images}",
            *([f"linear probe: {self.probe.words}"] if self.probe else []),
            f"intact {'agreement' if self.plan.labels == 'model' else 'accuracy'} {100 * self.intact.accuracy:.2f} % "
            f"[{100 * low:.2f}, {100 * high:.2f}]; intervals 95 %, changes paired by image",
            "explained by offset alone, mean of the layer's heads: of the variance about uniform (0 to 1), and of the",
            "information KL(attention || uniform)"
            + ("; then the head whose edit costs most: change of accuracy (points) /" if self.single else ""),
            *(["of loss (nats)"] if self.single else []),
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
        columns = ["layer", "variance", "information", *(WORDS[edit] for edit in self.single)]
        return Table(columns, rows, "\n".join(lines), "\n".join(self._points()))

    def _points(self) -> list[str]:
        """The end of each curve in words, or every point where there are curves alone."""
        lines = []
        for i, count in enumerate(self.plan.counts):
            last = i == len(self.plan.counts) - 1
            if last or not self.plan.single:
                which = f"all {count} heads" if last and count == len(self.plan.heads) else f"{count} heads"
                lines.append(f"{which} at once, change of accuracy (points):")
                for edit, row in self.cumulative.items():
                    lines.append(f"  {WORDS[edit]:<24} {row[i].points}")
        return lines

    def _worst(self, edit: str, layer: int) -> str:
        """Accuracy and loss change of the head whose edit costs the most loss."""
        if layer not in self.plan.layers:
            return "-"
        worst = max(self.single[edit][self.plan.layers.index(layer)], key=lambda effect: effect.loss)
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
                100 * self.values(edit, "change"), [[_words(effect) for effect in row] for row in rows],
                self.plan.layers,
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
            + (" (agreement with itself)" if self.plan.labels == "model" else "")
        )  # fmt: skip
        order = "least damage" if self.plan.single else "most explained"
        return Drawing(title, fractions, effects, self.plan.counts, curves, order)

    def record(self) -> dict[str, Any]:
        """Everything measured."""
        return {
            "source": self.source,
            "data": self.plan.data,
            "probe": self.probe and {**asdict(self.probe), "words": self.probe.words},
            **environment(self.device),
            "grid": self.positions.grid,
            "window": self.plan.window,
            "layers": self.plan.layers,
            "labels": self.plan.labels,
            "bfloat16": self.plan.bfloat16,
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
            "ordered_by": "damage of the own map" if self.plan.single else "variance explained",
            "counts": self.plan.counts,
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
