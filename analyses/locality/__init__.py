"""How local is a head? Distance, entropy, mass near the target, peak and symmetry of any model's maps by offset.

A ViT's heads, an AFT's and random-weight controls are measured alike, beside the uniform map of their own frame.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure, SubFigure

from analyses.command import report_folder, save
from analyses.locality.figure import SIZE, draw, interactive
from analyses.locality.metrics import METRICS, SCALARS, HeadLocality, Values, head_locality, layer_means
from analyses.offset_maps import Remainder, read_offset_maps
from analyses.provenance import environment
from analyses.result import Result, Table

PLACES = {"distance_pixels": 1, "effective": 1}
"""Decimals printed where they are not three."""


@dataclass(frozen=True)
class Locality(Result):
    """The locality of the heads of one or more sources, and how it was measured."""

    name = "locality"
    size = SIZE

    sources: tuple[HeadLocality, ...]
    radius: float
    """Of the mass near the target, in patches."""
    remainder: str
    plain: bool
    resamples: int
    seed: int

    def record(self) -> dict[str, Any]:
        """How it was measured, what the metrics are, and every source's."""
        return {
            **{name: getattr(self, name) for name in ("radius", "remainder", "plain", "resamples", "seed")},
            **environment(),
            "metrics": METRICS,
            "sources": self.sources,
        }

    def table(self) -> Table:
        """A row a layer of every source."""
        tables = [layer_table(source) for source in self.sources]
        rows = [[source.name, *row] for source, one in zip(self.sources, tables) for row in one.rows]
        return Table(["model", *tables[0].columns], rows)

    def answer(self) -> Table:
        """What is read first: a row a model, means over all its heads."""
        rows = [
            [source.name, *(f"{layer_means(source.values[key]).mean():.{PLACES.get(key, 3)}f}" for key in FIRST)]
            for source in self.sources
        ]
        return Table(["model", *map(_column, FIRST)], rows, "means over all heads; distance / uniform below 1 is local")

    def plot(self, figure: Figure | SubFigure) -> None:
        """A panel a metric, by layer."""
        draw(self.sources, self.radius, figure)

    def interactive(self) -> go.Figure:
        """The same with layer, head and value under the pointer."""
        return interactive(self.sources, self.radius)


FIRST = ("relative", "effective", "near")
"""Metrics of the first table, which compare models with other frames and patches."""


def layer_table(found: HeadLocality, *, by_head: bool = False) -> Table:
    """A row a layer (means over heads, with intervals), or a head, and the uniform baseline below."""
    what = f"attention over {found.images} images" if found.kind == "attention" else "|exp(w) - 1|"
    title = f"{found.name}: {what}, frame {found.frame[0]} x {found.frame[1]} offsets"
    layers, heads = found.values["distance"].shape
    peaks = [_place(peak) for peak in zip(found.values["peak_y"].flat, found.values["peak_x"].flat)]
    if by_head:
        names = [f"{layer}.{head}" for layer in range(layers) for head in range(heads)]
        values, bounds, share = found.values, found.interval, found.remainder_share.ravel()
    else:
        names = [str(layer) for layer in range(layers)]
        values, bounds = {key: layer_means(found.values[key]) for key in SCALARS}, found.layer_interval
        share = found.remainder_share.mean(1)
        peaks = [_commonest(peaks[layer * heads : (layer + 1) * heads]) for layer in range(layers)]
    rows = [
        [name, *(_cell(key, values[key].flat[i], bounds, i) for key in SCALARS), peaks[i], f"{share[i]:.2f}"]
        for i, name in enumerate(names)
    ]
    rows.append(["uniform", *(_cell(key, found.uniform[key]) for key in SCALARS), "-", "-"])
    header = ["layer.head" if by_head else "layer", *map(_column, SCALARS), "peak (Δy, Δx)", "remainder share"]
    return Table(header, rows, title)


def show(checkpoint: Path) -> Locality:
    """A checkpoint's locality beside its random weights, over few enough images to wait for."""
    maps = [read_offset_maps(str(checkpoint), images=64, resamples=50, control=control) for control in (False, True)]
    return Locality(tuple(head_locality(one) for one in maps), 1.5, "apart", False, 50, 0)


def metric_words(radius: float) -> str:
    """Every metric with its unit, definition and how to read it."""
    rows = [f"  {metric.name} ({metric.unit}): {metric.definition}; {metric.reading}" for metric in METRICS]
    rows.append("  remainder share: an AFT's pooled weight, the same at every offset, over all its weight; not in p")
    return f"metrics of a map p by offset, scaled to sum 1; radius {radius:g} patches\n" + "\n".join(rows)


def command(
    sources: list[str],
    images: int = 256,
    data: str | None = None,
    root: str | None = None,
    pretrained: bool = True,
    resamples: int = 200,
    radius: float = 1.5,
    window: int | None = None,
    remainder: Remainder = "apart",
    plain: bool = False,
    control: bool = True,
    heads: bool = False,
    definitions: bool = False,
    seed: int = 0,
    device: str = "cpu",
    out: Path | None = None,
) -> None:
    """Measure how local the heads of models are, each beside its random-weight control, and draw them by layer.

    Args:
        sources: One or more: a model's folder, the name of one that ships or was trained, torchvision:NAME, timm:NAME
            or hf:NAME_OR_PATH.
        images: Test images that a ViT's attention is averaged over (the paper: 256).
        data: Data set of those images, images:PATH for a folder of images without classes; the one a ViT of ours was
            trained on if left out.
        root: Folder of downloaded data; data/ if left out.
        pretrained: false takes random weights alone, for sources whose weights cannot be fetched.
        resamples: Bootstrap samples of the images for the 95 % intervals; 0 for none.
        radius: Of the mass near the target, in patches.
        window: Side that every map is cropped to (odd, in patches), to compare models with other frames.
        remainder: AFT's pooled sum outside its biases, "apart" (|exp(w) - 1|) or "included" (exp(w), 1 elsewhere).
        plain: Count an offset as often as the grid has it, instead of the border correction.
        control: Measure random weights beside each source.
        heads: Print every head instead of the means by layer.
        definitions: Print what each metric means, too.
        seed: Of the random weights and the bootstrap.
        device: Where a ViT runs: cpu, cuda or cuda:N.
        out: Folder for locality.json, .png, .svg and .html; if left out reports/locality, or reports/locality-random.
    """
    if resamples < 0:
        raise ValueError(f"resamples must be 0 or more, got {resamples}")
    kinds = [False] * pretrained + [True] * (control or not pretrained)
    found = []
    for spec in sources:
        for random in kinds:
            maps = read_offset_maps(
                spec, images=images, data=data, resamples=resamples, seed=seed, control=random, root=root,
                device=device, progress=True,
            )  # fmt: skip
            found.append(head_locality(maps, radius=radius, window=window, remainder=remainder, plain=plain))
    result = Locality(tuple(found), radius, remainder, plain, resamples, seed)
    tables = [result.answer(), *(layer_table(one, by_head=heads) for one in found)]
    print("\n\n".join(table.text() for table in tables))
    print("\n" + (metric_words(radius) if definitions else "--definitions says what each metric means"))
    save(result, out or report_folder("locality", *([] if pretrained else ["random"])))


def _column(key: str) -> str:
    metric = next(metric for metric in METRICS if metric.key == key)
    return (
        metric.name if metric.unit in ("share", "ratio", "correlation", "offsets") else f"{metric.name} ({metric.unit})"
    )


def _cell(key: str, value: float, intervals: Values | None = None, place: int = 0) -> str:
    """A value, with its interval where there is one; `place` counts through the intervals' layers (and heads)."""
    if not np.isfinite(value):
        return "-"
    places = PLACES.get(key, 3)
    if intervals is None:
        return f"{value:.{places}f}"
    low, high = intervals[key].reshape(2, -1)[:, place]
    return f"{value:.{places}f} [{low:.{places}f}, {high:.{places}f}]"


def _place(peak: tuple[float, float]) -> str:
    return "-" if np.isnan(peak[0]) else f"{peak[0]:+.0f}, {peak[1]:+.0f}"


def _commonest(peaks: Sequence[str]) -> str:
    """The peak of most heads, and how many share it."""
    place, count = Counter(peaks).most_common(1)[0]
    return f"{place} ({count} of {len(peaks)})"
