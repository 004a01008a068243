"""Structure or noise: do runs with other seeds keep the same offsets, once their heads are matched?

python -m analyses.pruning.evidence.agreement '[runs/a, runs/b, runs/c]' --keep 1 --out DIR
"""

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

from aft_lens.checkpoint import load_checkpoint
from aft_lens.statistics import percentile_interval, permutation_p
from analyses import theme
from analyses.assignment import assign, exchangeable, relabelling
from analyses.command import run_module
from analyses.learned.starts import check_starts
from analyses.pruning.criteria import score
from analyses.pruning.cutting.masks import select
from analyses.result import Result, Table

NULLS = ("places", "rings")


@dataclass(frozen=True)
class Agreement(Result):
    """How alike the offset sets of several runs are, and how alike they would be by chance."""

    runs: int
    keep: float
    overlap: float
    """Mean Jaccard overlap of matched heads over layers and pairs of runs, 0 to 1."""
    overlap_by_layer: list[float]
    null: str
    """places: window places relabelled at random; rings: only among places equally far from the target."""
    null_mean: float
    null_interval: tuple[float, float]
    """2.5 and 97.5 percentile of the overlap under the null."""
    p_value: float
    """Share of relabellings (counting the data) with an overlap as high as the data's."""
    draws: int
    size = (4.5, 3.0)

    @property
    def name(self) -> str:  # type: ignore[override]
        """A file a null."""
        return f"agreement-{self.null}"

    def record(self) -> dict[str, Any]:
        """Every field."""
        return asdict(self)

    def table(self) -> Table:
        """Overlap against chance."""
        low, high = self.null_interval
        row = [self.null, f"{self.overlap:.3f}", f"{self.null_mean:.3f} [{low:.3f}, {high:.3f}]", f"{self.p_value:.3g}"]
        return Table(COLUMNS, [row])

    def plot(self, figure: Figure | SubFigure) -> None:
        """Overlap by layer over the band of chance."""
        axis = figure.subplots()
        layers = range(len(self.overlap_by_layer))
        axis.bar(layers, self.overlap_by_layer, color="#4c72b0", label="runs, heads matched")
        axis.axhspan(*self.null_interval, color="grey", alpha=0.35, label=f"95 % of random {self.null} (all layers)")
        axis.set(xlabel="layer", ylabel="overlap of offsets", title=self._title)
        axis.legend(frameon=False, fontsize=8)

    def interactive(self) -> go.Figure:
        """The same bars and band."""
        figure = go.Figure(go.Bar(y=self.overlap_by_layer, name="runs, heads matched"))
        low, high = self.null_interval
        figure.add_hrect(low, high, fillcolor="grey", opacity=0.35, line_width=0, annotation_text=f"random {self.null}")
        theme.layout(theme.axes(figure), height=360, title=self._title)
        figure.update_xaxes(title="layer")
        figure.update_yaxes(title="overlap of offsets")
        return figure

    @property
    def _title(self) -> str:
        return f"k = {self.keep:g}, p = {self.p_value:.3g}"


COLUMNS = ("null", "overlap", "chance [95 %]", "p")


def match_heads(first: Tensor, second: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The assignment of the second run's heads to the first's with the highest total overlap.

    Masks are `h y x` (True where kept). Returns, for each head of `first`, the matched head and their Jaccard
    overlap; two empty heads overlap fully.
    """
    a, b = first.flatten(1).double(), second.flatten(1).double()
    both = (a @ b.T).numpy()
    either = a.sum(1).numpy()[:, None] + b.sum(1).numpy()[None] - both
    overlap = np.where(either > 0, both / np.maximum(either, 1), 1.0)
    rows, columns = assign(overlap)
    return columns, overlap[rows, columns]


def agreement(runs: Sequence[Sequence[Tensor]], *, null: str = "places", draws: int = 500, seed: int = 0) -> Agreement:
    """Compare the masks (`h y x` a layer) of several runs after optimal head matching within each layer.

    The permutation baseline relabels the window's places of every run and layer at random, which keeps each
    layer's number of offsets and duplicates, and matches again; `null="rings"` relabels only among places equally
    far from the target, so a shared taste for near places alone is no structure. Raises ValueError with fewer
    than two runs, unequal shapes, or an unknown null.
    """
    if len(runs) < 2:
        raise ValueError(f"runs must be at least 2 to compare, got {len(runs)}")
    if null not in NULLS:
        raise ValueError(f"null must be one of {NULLS}, got {null!r}")
    shapes = {tuple(tuple(mask.shape) for mask in run) for run in runs}
    if len(shapes) > 1:
        raise ValueError(f"runs must have the same layers, heads and windows, got {sorted(shapes)}")
    generator = np.random.default_rng(seed)
    by_layer = _overlap(runs)
    groups = exchangeable(runs[0][0].shape[1:], null)
    chance = np.array([_overlap([_relabelled(run, groups, generator) for run in runs]).mean() for _ in range(draws)])
    observed = float(by_layer.mean())
    low, high = percentile_interval(chance)
    kept = sum(int(mask.sum()) for run in runs for mask in run) / sum(len(mask) for run in runs for mask in run)
    return Agreement(
        runs=len(runs),
        keep=kept,
        overlap=observed,
        overlap_by_layer=[float(value) for value in by_layer],
        null=null,
        null_mean=float(chance.mean()),
        null_interval=(float(low), float(high)),
        p_value=permutation_p(observed, chance, tolerance=1e-12),
        draws=draws,
    )


def _overlap(runs: Sequence[Sequence[Tensor]]) -> np.ndarray:
    """Mean matched overlap of every layer, over all pairs of runs."""
    pairs = itertools.combinations(runs, 2)
    return np.mean([[match_heads(a, b)[1].mean() for a, b in zip(*pair, strict=True)] for pair in pairs], axis=0)


def _relabelled(run: Sequence[Tensor], groups: Sequence[np.ndarray], generator: np.random.Generator) -> list[Tensor]:
    """Each layer with its places exchanged at random within the groups."""
    layers = []
    for mask in run:
        order = relabelling(groups, generator)
        layers.append(mask.flatten(1)[:, torch.from_numpy(order)].view(mask.shape))
    return layers


def command(
    checkpoints: list[Path], keep: int = 1, criterion: str = "hard", draws: int = 500, shared_start: bool = False,
    out: Path | None = None,
) -> None:  # fmt: skip
    """Compare the offsets that runs of one model with different seeds keep, and print overlap against chance.

    Args:
        checkpoints: two or more checkpoint folders of the same architecture.
        keep: offsets a head.
        criterion: one that needs no images (magnitude, hard, random, centre).
        draws: relabellings for the permutation baseline.
        shared_start: compare models that started from one draw too, which is refused otherwise, and say so.
        out: a folder for JSON and figures.
    """
    if words := check_starts(checkpoints, allowed=shared_start):
        print(f"Beware: {words}")
    models = [load_checkpoint(path).model for path in checkpoints]
    runs = [select(score(model, criterion), keep) for model in models]
    found = [agreement(runs, null=null, draws=draws) for null in NULLS]
    print(Table(COLUMNS, [row for each in found for row in each.table().rows]).text())
    if out is not None:
        print("\n".join(str(path) for each in found for path in each.save(out)))


if __name__ == "__main__":
    run_module("analyses.pruning.evidence.agreement", command)
