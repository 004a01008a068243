"""What was found: how little position a ViT's heads need, as one result."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

from aft_lens.statistics import Interval, normal_interval, wilson
from analyses.ablate import figure as drawing
from analyses.ablate.bench import Row
from analyses.ablate.curve import Area, Curve, Point, areas
from analyses.ablate.plan import ORDERS, Plan
from analyses.ablate.rung import ABLATIONS, Rung
from analyses.explain.causal import Head
from analyses.explain.position import HeadPositions
from analyses.provenance import environment
from analyses.result import Result, Table

METHOD = (
    "A head's attention is replaced, whatever the image: by its average over calibration images by offset (source "
    "minus target, border-corrected, renormalised for each target), by the k strongest offsets of that map in its "
    "proportions (a target whose sources all lie beyond the border reads all patches alike), by a 3 x 3 depth-wise "
    "kernel fitted by least squares to what the head reads, or by an ablation. Prefix tokens (class, registers) are "
    "treated apart: a patch gives each its mean share, and as targets, having no place on the grid, they keep their "
    "mean row over all tokens. uniform: every patch alike. mean: the head's mean output over images, patches "
    "together and prefix tokens apart. resample: its output on one of 16 calibration images. zero: no output. "
    "Orders: explained, by the share of the attention's variance about uniform that offsets explain; deviation, by "
    "the standard deviation of the attention over images; damage and greedy on calibration images. Areas: under the "
    "curve over the share of heads replaced; of the score over the intact one's (retained), and of faithfulness, "
    "from the model whose heads are all ablated (0) to the intact one (1), by ablation. within: heads replaced up to "
    "the last point before the first that loses more than the tolerance. Intervals are 95 %: Agresti and Min's of "
    "changes of accuracy, paired by image; normal ones of losses and cosines; percentiles over bootstrap samples of "
    "the images of areas and CKA."
)


@dataclass(frozen=True)
class Restored:
    """What an offset alone restores to a head that reads uniformly, the other heads staying replaced."""

    rank: int
    """Of the offset among the head's, 1 the strongest."""
    loss: float
    """Of the loss, nats (without classes, of 1 - cosine): mean over images without the head's offsets less that with
    this one."""
    interval: Interval
    """95 %, paired by image; above 0 the offset surely restores something."""


@dataclass(frozen=True)
class Needed:
    """A replaced head among others: what its offsets restore, the head reading uniformly without them."""

    layer: int
    head: int
    loss: float
    """Of the loss, nats (without classes, of 1 - cosine): mean over images without the offsets less that with them."""
    interval: Interval
    """95 %, paired by image; above 0 the head needs its offsets."""
    offsets: tuple[Restored, ...] = ()
    """Each of its offsets alone, where it has several."""

    @classmethod
    def of(cls, head: Head, with_all: Row, without: Row, single: Sequence[Row] = ()) -> "Needed":
        """From rows on the same images; `single` are with each offset alone, the strongest first."""
        each = [_gain(without, row) for row in single]
        offsets = tuple(Restored(rank, float(gain.mean()), normal_interval(gain)) for rank, gain in enumerate(each, 1))
        gain = _gain(without, with_all)
        return cls(*head, float(gain.mean()), normal_interval(gain), offsets)


def _gain(without: Row, row: Row) -> Float[np.ndarray, "image"]:
    """By image, what a row gains over one without offsets."""
    if row.right:
        return np.array(without.loss) - np.array(row.loss)
    return np.array(row.cosines) - np.array(without.cosines)


@dataclass(frozen=True)
class Ablation(Result):
    """Curves, single heads and layers of one model, and which offsets are needed."""

    name = "ablate"

    source: str
    positions: HeadPositions
    deviation: Float[Tensor, "layer head"]
    """Of attention over images; see `Calibration`."""
    plan: Plan
    intact: Row
    curves: tuple[Curve, ...]
    single: dict[Rung, tuple[Point, ...]]
    """By rung: each head replaced alone, layer by layer."""
    layers: dict[Rung, tuple[Point, ...]]
    """By rung: all heads of each layer at once."""
    needed: tuple[Needed, ...]
    """Of the heads within the tolerance in the first order."""
    models: tuple[int, int]
    """Replaced models that were asked for, and those among them that differ: those that were measured."""
    data: str = ""
    """Of the images."""
    classes: str = "data"
    """"data", "model" (agreement with the intact model's classes) or "none" (cosine of features)."""
    probe: str = ""
    """How the classifier was fitted, where it is not the model's own."""
    device: str = "cpu"
    bfloat16: bool = False
    threads: int = 0
    """Of PyTorch, while it was measured; 0: not said."""
    label: str = ""
    """What tables and figures call the model; its source if empty."""

    @property
    def shown(self) -> str:
        """What the model is called."""
        return self.label or self.source

    @property
    def heads(self) -> int:
        """Of the whole model."""
        return self.deviation.numel()

    @property
    def unit(self) -> str:
        """Of scores."""
        return {"data": "accuracy", "model": "agreement of classes", "none": "cosine of features"}[self.classes]

    @property
    def size(self) -> tuple[float, float]:  # type: ignore[override]
        """Curves above, and a panel of single heads for each rung."""
        return drawing.size(self)

    def curve(self, order: str, rung: Rung) -> Curve | None:
        """One of the curves."""
        return next((one for one in self.curves if (one.order, one.rung) == (order, rung)), None)

    def alone(self, rung: Rung) -> int:
        """Heads whose replacement alone loses no more than the tolerance."""
        return sum(point.change >= -self.plan.tolerance / 100 - 1e-12 for point in self.single[rung])

    def faithfulness(self, curve: Curve) -> dict[str, Area]:
        """Areas under a curve: retained, and faithfulness by ablation, of those that were carried on to all heads."""
        found = {"retained": areas(curve, self.intact)}
        for kind in ABLATIONS:
            floor = self.curve(self.plan.orders[0], Rung(kind))
            if floor is not None and floor.points[-1].count == self.heads:
                found[kind] = areas(curve, self.intact, floor.rows[-1])
        return {name: area for name, area in found.items() if area is not None}

    def rivals(self) -> dict[str, Area]:
        """By other order: by how much more area the first order's curve of `by` has, paired by image."""
        first = self.curve(self.plan.orders[0], self.plan.by)
        found = {}
        for order in self.plan.orders[1:]:
            other = self.curve(order, self.plan.by)
            area = areas(first, self.intact, less=other) if first and other else None
            if area is not None:
                found[order] = area
        return found

    def table(self) -> Table:
        """A row a curve: how many heads it replaces within the tolerance, its areas, and its points."""
        counts = self.plan.counts
        shown = [counts[0], counts[len(counts) // 2], counts[-1]]
        rows = []
        for one in self.curves:
            at = {point.count: point for point in one.points}
            found = self.faithfulness(one)
            rows.append(
                [
                    one.order, one.rung.words, f"{one.within} ({one.surely})",
                    str(found["retained"]) if "retained" in found else "-", *(at[count].points for count in shown),
                ]
            )  # fmt: skip
        columns = ["order", "heads replaced by", "within (surely)", "area retained [95 %]"]
        columns += [f"{count} heads (points)" for count in shown]
        return Table(columns, rows, "\n".join(self._title()), "\n".join(self._notes()), words=2)

    def _title(self) -> list[str]:
        images = len(self.intact.right or self.intact.cosines)
        lines = [f"{self.shown}{self.data and f' on {self.data}'}: maps from {self.positions.images} images; {images} "
                 f"test images, {self.heads} heads"]  # fmt: skip
        if self.probe:
            lines.append(f"linear probe: {self.probe}")
        if self.intact.right:
            right = self.intact.right.count("1")
            low, high = wilson(right, images)
            lines.append(f"intact {self.unit} {100 * right / images:.2f} % [{100 * low:.2f}, {100 * high:.2f}]")
        lines.append(
            f"within: heads that can be replaced while the {self.unit} loses {self.plan.tolerance:g} "
            "point(s) at most (surely: by its whole interval)"
        )
        return lines

    def _notes(self) -> list[str]:
        lines = [f"{order}: {ORDERS[order]}" for order in self.plan.orders]
        for rung in self.single:
            lines.append(
                f"alone, {self.alone(rung)} of {self.heads} heads can be replaced by {rung.words} within the tolerance"
            )
        for order, area in self.rivals().items():
            lines.append(f"area of {self.plan.orders[0]} less that of {order}, {self.plan.by.words}: {area}")
        if self.needed:
            sure = sum(one.interval[0] > 0 for one in self.needed)
            lines.append(
                f"of the {len(self.needed)} heads within in the order that goes farthest, {sure} surely need their "
                "offsets: uniform in their place, the loss rises"
            )
            single = [offset for one in self.needed for offset in one.offsets]
            if single:
                sure = sum(offset.interval[0] > 0 for offset in single)
                lines.append(f"of their {len(single)} offsets, {sure} surely restore something when given back alone")
        return lines

    def plot(self, figure: Figure | SubFigure) -> None:
        """Curves of replacements and of orders above, single heads below."""
        drawing.draw(self, figure)

    def interactive(self) -> go.Figure:
        """The same with every value and interval under the pointer."""
        return drawing.interactive(self)

    def record(self) -> dict[str, Any]:
        """Everything measured."""
        images = len(self.intact.right or self.intact.cosines)
        return {
            "model": self.shown, "source": self.source, "data": self.data, "classes": self.classes, "probe": self.probe,
            **environment(self.device), "threads": self.threads,
            "bfloat16": self.bfloat16, "method": METHOD, "grid": self.positions.grid,
            "prefix_tokens": self.positions.columns.shape[2], "heads": self.heads, "images": images,
            "calibration_images": self.positions.images, "tolerance_points": self.plan.tolerance,
            "greedy_step": self.plan.step, "greedy_rounds": self.plan.rounds, "seed": self.plan.seed,
            "models_asked": self.models[0],
            "models_measured": self.models[1],
            "score": self.intact.right.count("1") / images if self.intact.right else 1.0,
            "score_interval": wilson(self.intact.right.count("1"), images) if self.intact.right else None,
            "variance_explained": self.positions.variance, "deviation": self.deviation,
            "within": {
                one.order: {"heads": one.within, "surely": one.surely}
                for one in self.curves if one.rung == self.plan.by
            },
            "curves": [
                one.record() | {"areas": {name: asdict(area) for name, area in self.faithfulness(one).items()}}
                for one in self.curves
            ],
            "area_over": {order: asdict(area) for order, area in self.rivals().items()},
            "alone": {rung.name: self.alone(rung) for rung in self.single},
            "single": {rung.name: [asdict(point) for point in points] for rung, points in self.single.items()},
            "layers": {rung.name: [asdict(point) for point in points] for rung, points in self.layers.items()},
            "needed": [asdict(one) for one in self.needed],
        }  # fmt: skip
