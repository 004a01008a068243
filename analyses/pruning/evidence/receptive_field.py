"""The receptive field of a stack of kept offsets: exact sums through depth, against the gradient's field.

python -m analyses.pruning.evidence.receptive_field CHECKPOINT --keep 1 --out DIR
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from captum.attr import Saliency
from matplotlib.figure import Figure, SubFigure
from plotly.subplots import make_subplots
from scipy.stats import spearmanr
from torch import Tensor

from aft_lens.checkpoint import load_checkpoint
from aft_lens.models import VisionModel
from analyses import theme
from analyses.command import run_module
from analyses.pruning.criteria import score
from analyses.pruning.cutting.compact import compact_model
from analyses.pruning.cutting.masks import select
from analyses.pruning.images import load_images
from analyses.pruning.measuring.cost import Batches
from analyses.pruning.measuring.rung import kept_offsets
from analyses.result import Result, Table


@dataclass(frozen=True)
class ReceptiveField(Result):
    """Where a token looks through the whole stack: counted from the offsets, and measured by gradients."""

    composed: np.ndarray
    """Share of paths that end at each offset, `2H-1 2W-1`, the target in the middle; sums to at most 1."""
    gradient: np.ndarray
    """Mean |d logit at the target / d token at the source| by offset, same shape, mean 1 over seen offsets."""
    seen: np.ndarray
    """Pairs of positions averaged at each offset, same shape."""
    rank_correlation: float
    """Spearman correlation of the two over seen offsets."""
    inside_over_outside: float
    """Mean gradient at offsets that some path reaches, over the mean elsewhere (1: no difference)."""
    reach: tuple[int, int]
    """Furthest row and column step that a path of offsets can make."""
    name = "field"
    size = (8.0, 3.6)

    def record(self) -> dict[str, Any]:
        """Both fields and what they have in common."""
        names = ("rank_correlation", "inside_over_outside", "reach", "composed", "gradient")
        return {name: getattr(self, name) for name in names}

    def table(self) -> Table:
        """How far the offsets reach, and what gradients say of that."""
        rows = [
            ["rows and columns that offsets reach", f"{self.reach[0]} and {self.reach[1]}"],
            ["gradient where they reach over elsewhere", f"{self.inside_over_outside:.2f}"],
            ["rank correlation of paths and gradient", f"{self.rank_correlation:.3f}"],
        ]
        return Table(["receptive field", ""], rows)

    def plot(self, figure: Figure | SubFigure) -> None:
        """Both fields by offset."""
        side, across = (size // 2 for size in self.composed.shape)
        extent = (-across - 0.5, across + 0.5, side + 0.5, -side - 0.5)
        for axis, (title, values) in zip(figure.subplots(1, 2), self._panels(), strict=True):
            shown = axis.imshow(values, cmap="magma", extent=extent)
            axis.set(title=title, xlabel="Δx", ylabel="Δy")
            figure.colorbar(shown, ax=axis)

    def interactive(self) -> go.Figure:
        """The same with values under the pointer."""
        panels = self._panels()
        figure = make_subplots(1, 2, subplot_titles=[title for title, _ in panels])
        y, x = (np.arange(size) - size // 2 for size in self.composed.shape)
        for column, (_, values) in enumerate(panels, 1):
            heat = go.Heatmap(z=values, x=x, y=y, colorscale="Magma", showscale=False)
            figure.add_trace(heat, 1, column)
        figure.update_yaxes(autorange="reversed")
        return theme.layout(figure, height=420)

    def _panels(self) -> list[tuple[str, np.ndarray]]:
        return [("paths of offsets (root of share)", np.sqrt(self.composed)), ("gradient (mean = 1)", self.gradient)]


def composed_field(offsets: Sequence[Sequence[Sequence[Sequence[int]]]], grid: Sequence[int]) -> np.ndarray:
    """Share of paths by total offset when every layer adds 0 (its residual) or one of its kept offsets.

    `offsets` is (Δy, Δx) by layer and head; each layer takes the residual with weight 1/2 and shares the rest
    among its heads' offsets (a head that keeps none goes to the pool, which has no offset, and its paths end).
    Exact: the layers' distributions are convolved. The result has shape `2H-1 2W-1` for a grid `H W`; sums that
    leave it are dropped.
    """
    field = {(0, 0): 1.0}
    for layer in offsets:
        steps: dict[tuple[int, ...], float] = {(0, 0): 0.5}
        for head in layer:
            for step in head:
                place = tuple(step)
                steps[place] = steps.get(place, 0.0) + 0.5 / (len(layer) * len(head))
        fresh: dict[tuple[int, int], float] = {}
        for (y, x), share in field.items():
            for (dy, dx), weight in steps.items():
                fresh[(y + dy, x + dx)] = fresh.get((y + dy, x + dx), 0.0) + share * weight
        field = fresh
    rows, columns = grid
    result = np.zeros((2 * rows - 1, 2 * columns - 1))
    for (y, x), share in field.items():
        if abs(y) < rows and abs(x) < columns:
            result[y + rows - 1, x + columns - 1] = share
    return result


def gradient_field(model: VisionModel, batches: Batches, *, targets: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Captum's Saliency of a target token's predicted logit to every source token, averaged by offset.

    Tokens are the stem's output; the logit is the classifier's on the target's own last token. About `targets`
    target positions spread over the grid are averaged. Returns the mean and the number of pairs, `2H-1 2W-1`.
    """
    device = next(model.parameters()).device
    total, seen = None, None
    for images, _ in batches:
        grid = model.grid(images)
        rows, columns = grid
        if total is None or seen is None:
            total = np.zeros((2 * rows - 1, 2 * columns - 1))
            seen = np.zeros_like(total)

        def token_logits(tokens: Tensor, target: int, grid: tuple[int, int] = grid) -> Tensor:
            for block in model.blocks:
                tokens = block(tokens, grid)
            return model.head(model.norm(tokens))[:, target]

        with torch.no_grad():
            start = model.stem(images.to(device)).flatten(2).transpose(1, 2)
            predicted = model(images.to(device)).argmax(1)
        stride = max(1, rows * columns // targets)
        for target in range(stride // 2, rows * columns, stride):
            saliency = Saliency(token_logits)
            found = saliency.attribute(start.requires_grad_(), target=predicted, additional_forward_args=(target,))
            read = found.sum(-1).sum(0).view(rows, columns).detach().cpu().numpy()
            y, x = rows - 1 - target // columns, columns - 1 - target % columns
            total[y : y + rows, x : x + columns] += read
            seen[y : y + rows, x : x + columns] += len(images)
    if total is None or seen is None:
        raise ValueError("batches must hold at least one (images, labels) pair, got none")
    return total / np.maximum(seen, 1), seen


def receptive_field(model: VisionModel, batches: Batches, *, targets: int = 16) -> ReceptiveField:
    """Compare the field composed of a model's kept offsets with its gradients' field on some images."""
    offsets = kept_offsets(model)
    gradient, seen = gradient_field(model.eval(), batches, targets=targets)
    composed = composed_field(offsets, model.grid(batches[0][0]))
    measured = seen > 0
    gradient = np.where(measured, gradient / gradient[measured].mean(), 0.0)
    reached = composed > 0
    inside, outside = gradient[measured & reached], gradient[measured & ~reached]
    reach = [
        sum(max((abs(step[axis]) for head in layer for step in head), default=0) for layer in offsets)
        for axis in (0, 1)
    ]
    return ReceptiveField(
        composed=composed,
        gradient=gradient,
        seen=seen,
        rank_correlation=float(spearmanr(composed[measured], gradient[measured]).statistic),
        inside_over_outside=float(inside.mean() / outside.mean()) if len(outside) else float("nan"),
        reach=(reach[0], reach[1]),
    )


def command(
    checkpoint: Path, keep: int = 1, criterion: str = "magnitude", images: int = 32, out: Path | None = None
) -> None:
    """Compare the field that a pruned model's offsets add up to with Captum's gradients, and print both.

    Args:
        checkpoint: folder of an AFT-conv checkpoint.
        keep: offsets a head.
        criterion: how offsets are ranked, by one that needs no images (magnitude, hard, random, centre).
        images: test images whose gradients are averaged.
        out: a folder for JSON and figures.
    """
    loaded = load_checkpoint(checkpoint)
    batches = load_images(loaded.data, test=images, calibration=1).test
    field = receptive_field(compact_model(loaded.model, select(score(loaded.model, criterion), keep)), batches)
    print(f"{checkpoint}: {keep} offsets a head\n{field}")
    if out is not None:
        print("\n".join(str(path) for path in field.save(out)))


if __name__ == "__main__":
    run_module("analyses.pruning.evidence.receptive_field", command)
