"""How far does an output token see? Effective receptive fields of AFTs, ViTs and compact ViTs, block by block."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from matplotlib.figure import Figure, SubFigure
from plotly.subplots import make_subplots

from aft_lens.checkpoint import CONFIG, checkpoint_folder, load_checkpoint
from aft_lens.extraction import Preprocessing, drawn_words, image_batches, open_source
from aft_lens.statistics import Interval, normal_interval
from analyses import theme
from analyses.command import known_data, report
from analyses.field.energy import DRAWS, receptive_fields
from analyses.provenance import environment
from analyses.result import Result, Table, published

__all__ = ["Field", "Fields", "command", "receptive_fields"]
BATCH = 8
METHOD = (
    "Effective receptive field of the token in the middle of the grid after each block: squared Frobenius norm of the "
    f"Jacobian by the pixels of each patch ({DRAWS} random directions), as a share over patches; through attention or "
    "AFT, residuals and MLPs alike. distance: mean distance of that energy to the target, in patches, and over that of "
    "an even field. own: share of the target's own patch. Intervals are 95 %, normal, over images."
)


@dataclass(frozen=True)
class Field:
    """One model's fields."""

    model: str
    shares: Float[np.ndarray, "layer image rows columns"]
    """Of the energy, over patches."""
    target: tuple[int, int]
    data: str = ""

    @property
    def distances(self) -> Float[np.ndarray, "layer image"]:
        """Mean distance to the target, in patches."""
        return (self.shares * self._distance).sum((2, 3))

    @property
    def even(self) -> float:
        """That of a field that is the same everywhere."""
        return float(self._distance.mean())

    @property
    def own(self) -> Float[np.ndarray, "layer image"]:
        """Share of the target's own patch."""
        return self.shares[:, :, self.target[0], self.target[1]]

    @property
    def _distance(self) -> Float[np.ndarray, "rows columns"]:
        rows, columns = self.shares.shape[2:]
        return np.hypot(
            *np.meshgrid(np.arange(rows) - self.target[0], np.arange(columns) - self.target[1], indexing="ij")
        )


@dataclass(frozen=True)
class Fields(Result):
    """Fields of several models side by side."""

    name = "field"

    fields: tuple[Field, ...]
    images: int
    device: str = "cpu"

    @property
    def size(self) -> tuple[float, float]:  # type: ignore[override]
        """A panel a model, and one of distances."""
        return 3.0 * (len(self.fields) + 1), 3.2

    def table(self) -> Table:
        """A row a model: after the first block, in the middle and after the last."""
        rows = []
        for one in self.fields:
            depth = len(one.shares)
            shown = sorted({0, depth // 2, depth - 1})
            cells = [_interval(one.distances[layer], normal_interval(one.distances[layer])) for layer in shown]
            last = one.own[-1]
            rows.append([
                one.model, f"{one.even:.2f}", cells[0], cells[len(cells) // 2], cells[-1],
                _interval(100 * last, normal_interval(100 * last)),
            ])  # fmt: skip
        columns = ["model", "even", "after the first block", "in the middle", "after the last", "own patch, % (last)"]
        title = f"effective receptive fields over {self.images} images: mean distance in patches"
        return Table(columns, rows, title, "even: of a field that is the same everywhere; intervals 95 %", words=1)

    def plot(self, figure: Figure | SubFigure) -> None:
        """The field after the last block of each model, and distances over depth."""
        axes = figure.subplots(1, len(self.fields) + 1)
        for axis, one in zip(axes, self.fields):
            field = one.shares[-1].mean(0)
            shown = axis.imshow(np.log10(np.maximum(field, 1e-6)), "magma")
            axis.set_title(f"{one.model}, last block", fontsize=7)
            axis.set(xticks=[], yticks=[])
            figure.colorbar(shown, ax=axis, shrink=0.8).set_label("log10 of share", fontsize=6)
        for number, one in enumerate(self.fields):
            values = one.distances.mean(1) / one.even
            axes[-1].plot(np.linspace(0, 1, len(values)), values, marker="o", markersize=2.5,
                          color=theme.SERIES[number % len(theme.SERIES)], label=one.model)  # fmt: skip
        axes[-1].set_title("distance over an even field's", fontsize=7)
        axes[-1].set_xlabel("depth", fontsize=7)
        axes[-1].tick_params(labelsize=6)
        axes[-1].legend(fontsize=6)

    def interactive(self) -> go.Figure:
        """The same with values under the pointer."""
        titles = [*(f"{one.model}, last block" for one in self.fields), "distance over an even field's"]
        figure = make_subplots(1, len(titles), subplot_titles=titles)
        for column, one in enumerate(self.fields, 1):
            figure.add_trace(go.Heatmap(z=one.shares[-1].mean(0), colorscale="Magma", showscale=False), 1, column)
            figure.update_yaxes(autorange="reversed", row=1, col=column)
            line = {"color": theme.SERIES[(column - 1) % len(theme.SERIES)]}
            figure.add_trace(
                go.Scatter(y=one.distances.mean(1) / one.even, name=one.model, mode="lines+markers", line=line), 1,
                len(self.fields) + 1,
            )  # fmt: skip
        figure.update_xaxes(title="after block", dtick=1, row=1, col=len(self.fields) + 1)
        return theme.layout(figure, height=380, margin={"t": 40})

    def record(self) -> dict[str, Any]:
        """Mean fields, distances and own shares of every block."""
        models = []
        for one in self.fields:
            bounds: list[Interval] = [normal_interval(row) for row in one.distances]
            models.append({
                "model": one.model, "data": one.data, "target": one.target, "even_distance": one.even,
                "distance": one.distances.mean(1), "distance_interval": bounds, "own": one.own.mean(1),
                "field": one.shares[-1].mean(0),
            })  # fmt: skip
        return {**environment(self.device), "method": METHOD, "images": self.images, "models": models}


def command(
    sources: list[str],
    data: str | None = None,
    images: int = 16,
    pretrained: bool = True,
    root: str | None = None,
    device: str = "cpu",
    seed: int = 0,
    publish: Path | None = None,
    out: Path = Path("reports/field"),
) -> None:
    """Say how far an output token of models sees, block by block, through residuals and MLPs.

    Args:
        sources: Folders of checkpoints (AFT, ViT, pruned or compact), names of those that ship or were trained,
            timm:NAME, torchvision:NAME or hf:NAME_OR_PATH.
        data: Data set whose test images are taken; each model's own if left out.
        images: How many of them.
        pretrained: False takes random weights of other libraries' models, as a control.
        root: Folder of downloaded data; data/ if left out.
        device: cpu, cuda or cuda:N.
        seed: Of random weights and directions.
        publish: JSON to write the result into as well.
        out: Folder for field.json, .png, .svg and .html.
    """
    found = [_field(source, data, images, pretrained, root, device, seed) for source in sources]
    result = Fields(tuple(found), found[0].shares.shape[1], device)
    report(result, out)
    if publish is not None:
        print(f"wrote {published(result, publish, device)}")


def _field(
    source: str, data: str | None, images: int, pretrained: bool, root: str | None, device: str, seed: int
) -> Field:  # fmt: skip
    """One model's, on its own data or that which was asked for."""
    model: Any
    if (checkpoint_folder(source) / CONFIG).is_file():
        loaded = load_checkpoint(source, device)
        model, name, way = loaded.model, data or loaded.data["name"], Preprocessing.of_record(loaded.data)
    else:
        model = open_source(source, pretrained=pretrained, device=device, seed=seed)
        name, way = data or model.data, model.preprocessing
    name, way = known_data(source, name, way)
    given = image_batches(way, name, images=images, batch_size=BATCH, root=root)
    shares, target = receptive_fields(model, given, seed=seed, progress=True)
    return Field(source, shares, target, f"{name} ({drawn_words(given)})")


def _interval(values: Sequence[float] | np.ndarray, interval: Interval) -> str:
    return f"{np.mean(values):.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"
