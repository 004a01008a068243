"""Attributions that passed a check: does a map change when the weights go, and does it beat random pixels?"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from plotly.subplots import make_subplots
from torch import nn

from aft_lens.checkpoint import load_checkpoint
from aft_lens.data import batches, load_data
from analyses import theme
from analyses.attribution.checks import DRAWS, STEPS, Check, check
from analyses.attribution.methods import METHODS, Attribute
from analyses.command import report, report_folder
from analyses.provenance import environment
from analyses.result import Result, Table, published

__all__ = ["Checked", "check_attributions", "command"]
METHOD = (
    "weights gone: the weights of each part are shuffled among themselves, from the classifier down, one part after "
    "another (Adebayo et al. 2018); Spearman's correlation over pixels of |attribution| with that of the trained "
    "model, for the class that it predicted. deletion, insertion: the probability of the predicted class as pixels "
    f"become grey, or appear on grey, those that speak most for it first, in {STEPS} steps (Petsiuk et al. 2018); the "
    f"area under the curve less the mean of {DRAWS} random orders. Intervals are 95 %, normal, over images. An "
    "attribution passes where the correlation without weights surely stays below 0.5, and both areas surely beat "
    "random orders."
)


@dataclass(frozen=True)
class Checked(Result):
    """Every attribution of one model beside its checks."""

    name = "attributions"

    source: str
    checks: tuple[Check, ...]
    images: int
    data: str = ""
    cell: int = 1
    """Side of the squares of pixels that are deleted at once."""
    device: str = "cpu"

    @property
    def size(self) -> tuple[float, float]:  # type: ignore[override]
        """A row an attribution."""
        return 9.0, 2.4 * len(self.checks) + 0.4

    def table(self) -> Table:
        """A row an attribution, with what it passed."""
        rows = []
        for one in self.checks:
            last = one.stages[-1]
            cells = [_interval(last.correlation, last.interval)]
            cells += [_interval(curve.gain, curve.interval) for curve in (one.deletion, one.insertion)]
            rows.append([one.method.replace("_", " "), *cells, one.words])
        columns = [
            "attribution",
            "like itself without weights",
            "deletion less random",
            "insertion less random",
            "knows",
        ]
        title = f"{self.source}: attributions checked on {self.images} images{f' of {self.data}' if self.data else ''}"
        note = "deletion below 0 and insertion above 0 beat random pixels; likeness near 0 rests on the weights; 95 %"
        return Table(columns, rows, title, note, words=1)

    def plot(self, figure: Figure | SubFigure) -> None:
        """Likeness as weights go, deletion and insertion: a row an attribution."""
        axes = figure.subplots(len(self.checks), 3, squeeze=False)
        for row, one in zip(axes, self.checks):
            draw_check(row, one)

    def interactive(self) -> go.Figure:
        """The same with values under the pointer."""
        titles = [f"{one.method.replace('_', ' ')}: {words}" for one in self.checks
                  for words in ("without weights", "deletion", "insertion")]  # fmt: skip
        figure = make_subplots(len(self.checks), 3, subplot_titles=titles)
        for row, one in enumerate(self.checks, 1):
            stages = go.Scatter(
                x=[stage.part or "trained" for stage in one.stages], y=[stage.correlation for stage in one.stages],
                mode="lines+markers", line={"color": theme.SERIES[0]}, showlegend=False,
            )  # fmt: skip
            figure.add_trace(stages, row, 1)
            for column, curve in ((2, one.deletion), (3, one.insertion)):
                for name, values, colour in (("by attribution", curve.attributed, theme.SERIES[0]),
                                             ("random", curve.random, theme.MUTED)):  # fmt: skip
                    line = go.Scatter(
                        x=curve.share, y=values, name=name, line={"color": colour}, showlegend=row == 1 and column == 2
                    )
                    figure.add_trace(line, row, column)
        figure.update_annotations(font_size=12)
        margin = {"l": 60, "r": 16, "t": 36, "b": 44}  # room for the first titles
        return theme.axes(theme.layout(figure, height=120 + 240 * len(self.checks), margin=margin))

    def record(self) -> dict[str, Any]:
        """Every curve."""
        return {
            "source": self.source, "data": self.data, **environment(self.device), "method": METHOD,
            "images": self.images, "cell_pixels": self.cell,
            "checks": [
                asdict(one) | {"knows_weights": one.knows_weights, "knows_image": one.knows_image}
                for one in self.checks
            ],
        }  # fmt: skip


def draw_check(row: Sequence[Axes], one: Check) -> None:
    """The panel of one attribution: likeness as weights go, deletion, insertion; three axes."""
    row[0].errorbar(
        range(len(one.stages)), [stage.correlation for stage in one.stages], color=theme.SERIES[0], marker="o",
        markersize=2.5, yerr=[abs(stage.correlation - stage.interval[0]) for stage in one.stages], linewidth=1,
    )  # fmt: skip
    names = [stage.part or "trained" for stage in one.stages]
    row[0].set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=5)
    row[0].set_ylabel(one.method.replace("_", " "), fontsize=7)
    row[0].set_title("like itself, weights gone down to", fontsize=8)
    for axis, words, curve in ((row[1], "deletion", one.deletion), (row[2], "insertion", one.insertion)):
        axis.plot(curve.share, curve.attributed, color=theme.SERIES[0], label="by attribution")
        axis.plot(curve.share, curve.random, color=theme.MUTED, linestyle="--", label="random")
        axis.set_title(f"{words}: probability over share of pixels", fontsize=8)
        axis.legend(fontsize=6)
    for axis in row:
        axis.tick_params(labelsize=5)


def check_attributions(
    model: nn.Module, images: torch.Tensor, methods: dict[str, Attribute] | None = None, *, cell: int = 1,
    seed: int = 0, progress: bool = False,
) -> Checked:  # fmt: skip
    """Check attributions of a classifier on normalised images `b c y x`: those that are shown here, or your own.

    `methods` are functions of (model, images, classes) that return `b y x`. Raises ValueError on fewer than two images
    and where `cell` does not divide their sides.
    """
    found = tuple(
        check(model, images, name, one, cell=cell, seed=seed, progress=progress)
        for name, one in (methods or METHODS).items()
    )
    return Checked(type(model).__name__, found, len(images), cell=cell, device=str(images.device))


def command(
    checkpoint: Path,
    data: str | None = None,
    images: int = 16,
    cell: int = 0,
    root: str | None = None,
    device: str = "cpu",
    seed: int = 0,
    publish: Path | None = None,
    out: Path | None = None,
) -> None:
    """Check the attributions that are shown of a model: without weights, and against random pixels.

    Args:
        checkpoint: A classifier's folder, or the name of one that ships or was trained.
        data: Data set whose test images are taken; the model's own if left out.
        images: How many of them.
        cell: Side of the squares of pixels that are deleted at once; the model's patch if left out.
        root: Folder of downloaded data; data/ if left out.
        device: cpu, cuda or cuda:N.
        seed: Of shuffled weights and random orders.
        publish: JSON to write the result into as well.
        out: Folder for attributions.json, .png, .svg and .html; reports/NAME if left out.
    """
    loaded = load_checkpoint(checkpoint, device)
    if not loaded.config.num_classes:
        raise ValueError(f"{checkpoint} has no classifier to attribute a class of; give one that has")
    name = data or loaded.data["name"]
    source = load_data(name, root=root, img_size=loaded.config.img_size)
    source.check_fits(loaded.data)
    batch = torch.cat([each for each, _ in batches(source, images)]).to(device)
    found = check_attributions(loaded.model, batch, cell=cell or loaded.config.patch_size, seed=seed, progress=True)
    result = Checked(str(checkpoint), found.checks, found.images, name, found.cell, device)
    report(result, out or report_folder(checkpoint))
    if publish is not None:
        print(f"wrote {published(result, publish, device)}")


def _interval(value: float, interval: tuple[float, float]) -> str:
    return f"{value:+.3f} [{interval[0]:+.3f}, {interval[1]:+.3f}]"
