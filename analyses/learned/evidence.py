"""How much of every model that ships is learned, whether it looks near, and whether seeds agree: one record.

python -m analyses.learned.evidence --runs '[runs/study/cifar10-long-conv-s0, ...]'
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure, SubFigure
from scipy.stats import rankdata

from aft_lens.checkpoint import Checkpoint, list_checkpoints, load_checkpoint, read_first
from aft_lens.models import position_biases
from aft_lens.statistics import Interval, percentile_interval, permutation_p
from analyses.bias import position_bias_maps
from analyses.command import run_module
from analyses.learned.measure import FIRST_LAYERS, MOSTLY, learned
from analyses.learned.starts import check_starts
from analyses.maps.frame import offsets
from analyses.provenance import RESULTS
from analyses.pruning.criteria import score
from analyses.pruning.cutting.masks import select
from analyses.pruning.evidence.agreement import NULLS, Agreement, agreement
from analyses.result import Result, Table, published
from analyses.theme import SERIES, axes, layout

DRAWS = 500
"""Of shuffled maps."""


@dataclass(frozen=True)
class Row:
    """A model that ships."""

    checkpoint: str
    data: str
    seed: int
    start_correlation: float | None
    """Mean |correlation| of w' with its start over heads; None where no start is kept."""
    strongest_stayed: float | None
    """Share of heads whose strongest offset is the start's."""
    chance: float
    """That share by chance."""
    moved: float
    """Mean share of a target's weight that a head's bias moves where keys are equal."""
    idle: int
    """Heads whose bias does nothing."""
    heads: int
    """All of them."""
    nearness: float | None
    """Mean Spearman correlation of w with nearness over the heads of the first layers; None where all are flat."""
    shuffled: Interval | None
    """2.5 and 97.5 percentile of that for maps whose places are shuffled."""
    p_value: float | None
    """Share of shuffles, counting the data, that are as near."""


@dataclass(frozen=True)
class LearnedEvidence(Result):
    """Every model that ships, and whether the offsets of runs with other seeds agree."""

    name = "learned"
    size = (7.0, 4.0)

    rows: tuple[Row, ...]
    agreements: tuple[Agreement, ...]
    """Of runs of one configuration, against both baselines; empty where no runs were given."""

    def record(self) -> dict[str, Any]:
        """Every row and agreement."""
        return {"rows": [asdict(row) for row in self.rows], "agreements": [each.record() for each in self.agreements]}

    def table(self) -> Table:
        """A model a row."""
        columns = ("checkpoint", "start |r|", "as at start", "weight moved", "idle", "nearness", "shuffled [95 %]", "p")
        note = [
            f"{each.runs} runs keep the same {each.keep:g} offsets a head: overlap {each.overlap:.3f}, by chance "
            f"({each.null}) {each.null_mean:.3f} [{each.null_interval[0]:.3f}, {each.null_interval[1]:.3f}], "
            f"p = {each.p_value:.3g}"
            for each in self.agreements
        ]
        return Table(columns, [_cells(row) for row in self.rows], note="\n".join(note))

    def plot(self, figure: Figure | SubFigure) -> None:
        """How much of each model's maps is its start."""
        axis, rows = figure.subplots(), self._known()
        axis.barh([row.checkpoint for row in rows], [row.start_correlation or 0.0 for row in rows], color="#2f6db3")
        axis.axvline(MOSTLY, color="#d1603d", lw=1, label="mostly the start")
        axis.set_xlim(0, 1)
        axis.invert_yaxis()
        axis.set_xlabel("mean |correlation| of w' with its start")
        axis.legend(fontsize=7)

    def interactive(self) -> go.Figure:
        """The same with the values under the pointer."""
        rows = self._known()
        bar = go.Bar(x=[row.start_correlation for row in rows], y=[row.checkpoint for row in rows], orientation="h",
                     marker_color=SERIES[0])  # fmt: skip
        figure = go.Figure(bar)
        figure.update_xaxes(title="mean |correlation| of w' with its start", range=[0, 1])
        figure.update_yaxes(autorange="reversed")
        return layout(axes(figure), height=120 + 32 * len(rows))

    def _known(self) -> list[Row]:
        return [row for row in self.rows if row.start_correlation is not None]


def evidence(loaded: Checkpoint, *, draws: int = DRAWS, seed: int = 0) -> Row:
    """Measure one model. Raises ValueError where it has no position biases by offset."""
    model, found = loaded.model, learned(loaded.model, read_first(loaded.path))
    maps = position_bias_maps(model, loaded.path.name)
    near = _nearness([w.detach().numpy() for w in position_biases(model)[:FIRST_LAYERS]], draws, seed)
    return Row(
        loaded.path.name, loaded.data.get("name", ""), loaded.seed, found.start_correlation if found else None,
        found.stayed if found else None, 1 / maps.maps[0, 0].size, float(maps.moved.mean()), int(maps.idle.sum()),
        maps.idle.size, *near,
    )  # fmt: skip


def _nearness(
    biases: Sequence[np.ndarray], draws: int, seed: int
) -> tuple[float, Interval, float] | tuple[None, None, None]:
    """Mean rank correlation with nearness over heads that are not flat; of shuffled places; its p-value."""
    heads = [head.ravel() for w in biases for head in w if np.ptp(head) > 0]
    if not heads:
        return None, None, None
    ranks = np.stack([rankdata(head) for head in heads])
    near = np.stack([rankdata(-np.hypot(*offsets(biases[0].shape[1:])).ravel())] * len(heads))
    ranks, near = ((each - each.mean(1, keepdims=True)) / each.std(1, keepdims=True) for each in (ranks, near))
    observed = float((ranks * near).mean())
    rng = np.random.default_rng(seed)
    chance = np.array([(rng.permuted(ranks, axis=1) * near).mean() for _ in range(draws)])
    low, high = percentile_interval(chance)
    return observed, (float(low), float(high)), permutation_p(observed, chance)


def command(
    checkpoints: Path = Path("checkpoints"),
    runs: tuple[Path, ...] = (),
    keep: int = 4,
    draws: int = DRAWS,
    result: Path = RESULTS / "learned.json",
) -> None:
    """Measure how much of the models that ship is learned, print and publish it.

    Args:
        checkpoints: Folder of the models that ship.
        runs: Runs of one configuration with different seeds, two or more: do they keep the same offsets?
        keep: Offsets a head that are compared, those with the largest |exp(w) - 1|.
        draws: Shuffled maps, and relabellings of the runs' offsets.
        result: JSON to write.
    """
    loaded = [load_checkpoint(path) for path in list_checkpoints(checkpoints)]
    rows = tuple(evidence(each, draws=draws) for each in loaded if each.config.traits.weights == "offset")
    check_starts(runs)
    kept = [select(score(load_checkpoint(path).model, "magnitude"), keep) for path in runs]
    agreements = tuple(agreement(kept, null=null, draws=draws) for null in NULLS) if runs else ()
    found = LearnedEvidence(rows, agreements)
    print(found)
    print(f"wrote {published(found, result)}")


def _cells(row: Row) -> list[str]:
    """A model's cells of the table."""
    start = (
        ["–", "–"] if row.start_correlation is None or row.strongest_stayed is None
        else [f"{row.start_correlation:.2f}", f"{100 * row.strongest_stayed:.0f} % ({100 * row.chance:.1f} %)"]
    )  # fmt: skip
    near = (
        ["–", "–", "–"] if row.nearness is None or row.shuffled is None
        else [f"{row.nearness:+.2f}", f"[{row.shuffled[0]:+.2f}, {row.shuffled[1]:+.2f}]", f"{row.p_value:.2g}"]
    )  # fmt: skip
    return [row.checkpoint, *start, f"{100 * row.moved:.0f} %", f"{row.idle} of {row.heads}", *near]


if __name__ == "__main__":
    run_module("analyses.learned.evidence", command)
