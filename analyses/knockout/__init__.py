"""What a model loses when its position biases are zeroed, shuffled, mirrored, shifted, or kept near or far alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import plotly.graph_objects as go
import torch
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

from aft_lens.checkpoint import load_checkpoint
from aft_lens.models import VisionModel, position_biases
from aft_lens.progress import progress as bar
from analyses.command import report, report_folder
from analyses.explain.causal import Effect, Outcome, compare
from analyses.knockout.edits import EDITS, edited
from analyses.pruning.images import load_images
from analyses.pruning.measuring.cost import Batches, predict
from analyses.result import Result, Table
from analyses.theme import axes, layout

SHOWN = 500
"""Test images of the app's page."""


@dataclass(frozen=True)
class Knock:
    """One edit of some heads, on the same images as the intact model."""

    edit: str
    """Of `EDITS`."""
    layer: int | None
    """None: all layers."""
    head: int | None
    """None: all heads of it."""
    effect: Effect
    largest: float
    """Largest change of a logit; 0 where the heads do nothing that is asked of them."""


@dataclass(frozen=True)
class Knockout(Result):
    """Edits of a model's position biases and what they cost on fixed test images."""

    name = "knockout"

    source: str
    data: str
    images: int
    accuracy: float
    """Of the intact model, a share."""
    interval: tuple[float, float]
    knocks: tuple[Knock, ...]
    seed: int
    """Of the shuffles."""

    @property
    def size(self) -> tuple[float, float]:  # type: ignore[override]
        """As high as there are edits."""
        return 7.5, 1.2 + 0.28 * len(self.knocks)

    def record(self) -> dict[str, Any]:
        """Every edit with its paired intervals."""
        words = {name: words for name, (words, _) in EDITS.items()}
        return {
            "source": self.source, "data": self.data, "images": self.images, "seed": self.seed,
            "accuracy": self.accuracy, "interval": self.interval, "edits": words, "knocks": self.knocks,
        }  # fmt: skip

    def table(self) -> Table:
        """An edit a row."""
        rows = [
            [knock.edit, _where(knock), f"{100 * knock.effect.accuracy:.2f}", knock.effect.points,
             f"{knock.effect.loss:+.4f}", f"{knock.largest:.3g}"]
            for knock in self.knocks
        ]  # fmt: skip
        columns = ("edit", "heads", "accuracy %", "change (points) [95 %]", "loss (nats)", "max |Δlogit|")
        low, high = (100 * end for end in self.interval)
        title = (
            f"{self.source} on {self.images} test images of {self.data}: {100 * self.accuracy:.2f} % "
            f"[{low:.2f}, {high:.2f}]; changes are paired by image"
        )
        note = "\n".join(f"{name}: {EDITS[name][0]}" for name in dict.fromkeys(knock.edit for knock in self.knocks))
        return Table(columns, rows, title, note, words=2)

    def plot(self, figure: Figure | SubFigure) -> None:
        """Change of accuracy with its interval, an edit a row."""
        axis = figure.subplots()
        for place, knock in enumerate(self.knocks):
            axis.plot([100 * end for end in knock.effect.interval], [place] * 2, color="#2f6db3", lw=1.6)
            axis.plot(100 * knock.effect.change, place, "o", color="#2f6db3", ms=4)
        axis.axvline(0, color="#888888", lw=0.8)
        axis.set_yticks(
            range(len(self.knocks)), [f"{knock.edit}, {_where(knock)}" for knock in self.knocks], fontsize=7
        )
        axis.set_ylim(len(self.knocks) - 0.5, -0.5)
        axis.set_xlabel(f"change of accuracy from {100 * self.accuracy:.1f} %, points, and 95 % interval")

    def interactive(self) -> go.Figure:
        """The same with the values under the pointer."""
        changes = [100 * knock.effect.change for knock in self.knocks]
        ends = [100 * knock.effect.interval[1] for knock in self.knocks]
        figure = go.Figure(
            go.Scatter(
                x=changes, y=[f"{knock.edit}, {_where(knock)}" for knock in self.knocks], mode="markers",
                error_x={"array": [end - change for end, change in zip(ends, changes, strict=True)]},
                customdata=[knock.effect.points for knock in self.knocks], hovertemplate="%{y}: %{customdata} points",
            )
        )  # fmt: skip
        figure.update_yaxes(autorange="reversed")
        figure.update_xaxes(title="change of accuracy, points, and 95 % interval")
        return layout(axes(figure), height=120 + 24 * len(changes))


def knock_out(
    model: VisionModel, batches: Batches, *, by: str = "layer", source: str = "model", data: str = "", seed: int = 0,
    progress: bool = False,
) -> Knockout:  # fmt: skip
    """Edit all heads at once by every edit, and, `by` layer or head, each of them by w = 0 alone.

    Raises ValueError for a model without position biases by offset, on another `by`, and without any image.
    """
    if model.config.traits.weights != "offset":
        raise ValueError(f"model mixes with {model.config.mixer}, which has no position biases by offset to knock out")
    if by not in ("model", "layer", "head"):
        raise ValueError(f"by must be model, layer or head, got {by!r}")
    w = [each.detach() for each in position_biases(model)]
    intact, labels = predict(model, batches)
    before = Outcome.of(intact, labels)
    generator = torch.Generator().manual_seed(seed)
    todo: list[tuple[str, int | None, int | None]] = [(name, None, None) for name in EDITS]
    if by != "model":
        todo += [("zero", layer, None) for layer in range(len(w))]
    if by == "head":
        todo += [("zero", layer, head) for layer in range(len(w)) for head in range(len(w[layer]))]
    knocks = []
    for name, layer, head in bar(todo, "knock-outs", shown=progress, patience=0.0):
        biases = {}
        for number in range(len(w)) if layer is None else [layer]:
            changed = EDITS[name][1](w[number], generator)
            if head is not None:
                changed = torch.where(_only(head, w[number]), changed, w[number])
            biases[number] = changed
        with edited(model, biases):
            logits, _ = predict(model, batches)
        largest = float((logits - intact).abs().max())
        knocks.append(Knock(name, layer, head, compare(before, Outcome.of(logits, labels)), largest))
    return Knockout(source, data, len(labels), before.accuracy, before.interval, tuple(knocks), seed)


def show(checkpoint: Path) -> Knockout:
    """Knock out the biases of a checkpoint on some test images, layer by layer: the app's page."""
    loaded = load_checkpoint(checkpoint)
    images = load_images(loaded.data, test=SHOWN, calibration=0)
    return knock_out(loaded.model, images.test, source=checkpoint.name, data=images.source)


def command(
    checkpoint: Path,
    images: int = 0,
    by: Literal["model", "layer", "head"] = "layer",
    data: str | None = None,
    root: str | None = None,
    seed: int = 0,
    device: str = "cpu",
    out: Path | None = None,
) -> None:
    """Knock out, shuffle, mirror and shift position biases, keep them near or far alone, and measure what that costs.

    Args:
        checkpoint: An AFT-conv's folder, or the name of one that ships or was trained.
        images: Test images; 0 for all.
        by: What is set to w = 0 on its own beside all heads at once: nothing (model), each layer, or each head too.
        data: Data set in place of the checkpoint's own.
        root: Folder of downloaded data; data/ if left out.
        seed: Of the shuffles.
        device: cpu, cuda or cuda:N.
        out: Folder for knockout.json, .png, .svg and .html; reports/NAME if left out.
    """
    loaded = load_checkpoint(checkpoint, device)
    found = load_images(loaded.data, data=data, root=root, test=images, calibration=0, device=device)
    result = knock_out(
        loaded.model, found.test, by=by, source=str(checkpoint), data=found.source, seed=seed, progress=True
    )
    report(result, out or report_folder(checkpoint))


def _only(head: int, w: Tensor) -> Tensor:
    """True in one head."""
    return (torch.arange(len(w), device=w.device) == head).reshape(-1, 1, 1)


def _where(knock: Knock) -> str:
    """The heads in words."""
    if knock.layer is None:
        return "all"
    return f"layer {knock.layer}" if knock.head is None else f"{knock.layer}.{knock.head}"
