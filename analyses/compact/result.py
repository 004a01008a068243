"""A ViT without the queries and keys of some heads, as one result: parity, bytes, operations, latency."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import plotly.graph_objects as go
import torch
from matplotlib.figure import Figure, SubFigure

from analyses import theme
from analyses.ablate.plan import ORDERS
from analyses.ablate.rung import Rung
from analyses.compact.forms import Form
from analyses.explain.causal import Head
from analyses.provenance import environment
from analyses.result import Result, Table

METHOD = (
    "Replaced heads have no query and key: offsets are gathered in their proportions, renormalised for each target, a "
    "map is one matrix product, a kernel a depth-wise convolution, uniform a mean; heads of mean and zero have no "
    "value either. Parity is against the original with the same heads masked in place: the largest difference of "
    "features and logits over their largest entry. original: as its library runs it, with its fused attention; intact: "
    "the same weights as a model of ours; LayerScale is multiplied in. Latency: wall time of a batch, median and "
    "quartiles, models taking turns, two passes before; cpu: least processor time of a pass, which other work on the "
    "machine hardly changes; load: of the machine over a minute, after; images are the same ones repeated. bfloat16: "
    "all weights. distilled, fine-tuned: all weights that are left trained further, to the intact model's features or "
    "to labels, on images that nothing is measured on. Bytes are those of the safetensors file, operations those of "
    "matrix products and convolutions of one image."
)


@dataclass(frozen=True)
class Compacted(Result):
    """What compact forms cost beside their original."""

    name = "compact"

    source: str
    forms: tuple[Form, ...]
    """The original and its intact form first."""
    heads: tuple[Head, ...]
    """Those that were replaced."""
    of: int
    """Heads of the whole model."""
    order: str
    """How they were chosen."""
    pixels: int
    """Side of the image."""
    tokens: int
    images: int
    calibration_images: int
    data: str = ""
    probe: str = ""
    tuning: str = ""
    """How compact forms were trained further."""
    device: str = "cpu"
    label: str = ""
    """What tables and figures call the model; its source if empty."""
    load: float = 0.0
    """Of the machine over a minute, when times had been taken."""

    @property
    def shown(self) -> str:
        """What the model is called."""
        return self.label or self.source

    @property
    def conditions(self) -> list[str]:
        """Those that were timed."""
        return [time.condition for time in self.forms[0].times]

    @property
    def busy(self) -> bool:
        """Whether processor times were taken, for a machine with other work."""
        return all(time.latency.cpu_ms is not None for form in self.forms for time in form.times)

    @property
    def size(self) -> tuple[float, float]:  # type: ignore[override]
        """A panel a condition."""
        return 2.6 * max(2, len(self.conditions)), 3.0

    def words(self, form: Form) -> str:
        """What a form is called."""
        words = form.name if form.name in ("original", "intact") else Rung.read(form.name).words
        return f"{words}, {form.tuned}" if form.tuned else words

    def table(self) -> Table:
        """A row a form."""
        columns = ["model", "MB", "GFLOP", "parity", "cosine to intact", "accuracy (points)"]
        columns += [f"ms, {condition}" for condition in self.conditions]
        columns += [f"least cpu ms, {condition}" for condition in self.conditions] if self.busy else []
        rows = []
        for form in self.forms:
            replaced = form.name not in ("original", "intact")
            rows.append(
                [
                    self.words(form), f"{form.bytes / 1e6:.2f}", f"{form.operations / 1e9:.2f}",
                    f"{form.parity:.1e}" if replaced else "-", f"{form.cosine:.3f}" if replaced else "-",
                    form.effect.points if form.effect else "-", *(str(time.latency) for time in form.times),
                    *(f"{time.latency.cpu_ms:.1f}" for time in form.times if self.busy),
                ]
            )  # fmt: skip
        title = (
            f"{self.shown} at {self.pixels} pixels: {len(self.heads)} of {self.of} heads replaced "
            f"({ORDERS.get(self.order, self.order)}), {self.images} images"
            f"{f' of {self.data}' if self.data else ''}; latency with quartiles"
        )
        return Table(columns, rows, title, words=1)

    def plot(self, figure: Figure | SubFigure) -> None:
        """Bars of latency with quartiles, a panel a condition."""
        axes = figure.subplots(1, len(self.conditions), squeeze=False)[0]
        names = [self.words(form) for form in self.forms]
        for place, axis in enumerate(axes):
            values, down, up = self._latencies(place)
            axis.bar(names, values, color=self._colours(), yerr=[down, up], error_kw={"elinewidth": 0.8})
            axis.set_title(self.conditions[place], fontsize=8)
            axis.tick_params(axis="x", labelrotation=40, labelsize=6)
            axis.tick_params(axis="y", labelsize=6)
        axes[0].set_ylabel("ms", fontsize=7)
        figure.suptitle(
            f"{self.shown} at {self.pixels} pixels, {len(self.heads)} of {self.of} heads replaced", fontsize=9
        )

    def interactive(self) -> go.Figure:
        """The same with every value under the pointer."""
        figure = go.Figure()
        for form, colour in zip(self.forms, self._colours()):
            taken = [time.latency for time in form.times]
            figure.add_bar(
                x=self.conditions, y=[one.median_ms for one in taken], name=self.words(form), marker_color=colour,
                error_y={
                    "array": [(one.high_ms or one.median_ms) - one.median_ms for one in taken],
                    "arrayminus": [one.median_ms - (one.low_ms or one.median_ms) for one in taken],
                    "color": theme.INK, "thickness": 1,
                },
                hovertemplate="%{x}<br>%{y:.3f} ms",
            )  # fmt: skip
        return theme.axes(theme.layout(figure, height=420, title=self.table().title, yaxis={"title": "ms"}))

    def record(self) -> dict[str, Any]:
        """Everything measured."""
        return {
            "model": self.shown, "source": self.source, "data": self.data, "probe": self.probe,
            **environment(self.device), "threads": torch.get_num_threads(),
            "load": self.load, "method": METHOD, "pixels": self.pixels,
            "tokens": self.tokens, "heads": self.of, "replaced": self.heads, "order": self.order,
            "images": self.images, "calibration_images": self.calibration_images, "tuning": self.tuning,
            "forms": [asdict(form) for form in self.forms],
        }  # fmt: skip

    def _latencies(self, place: int) -> tuple[list[float], list[float], list[float]]:
        """Medians, and how far the quartiles are below and above, of one condition."""
        taken = [form.times[place].latency for form in self.forms]
        values = [one.median_ms for one in taken]
        down = [one.median_ms - (one.low_ms or one.median_ms) for one in taken]
        return values, down, [(one.high_ms or one.median_ms) - one.median_ms for one in taken]

    def _colours(self) -> Sequence[str]:
        return [theme.MUTED, theme.INK, *(theme.SERIES * len(self.forms))][: len(self.forms)]
