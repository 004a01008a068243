"""The ladder: a parent, its masked form, its compact form and the fine-tuned one, on the same images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from matplotlib.figure import Figure, SubFigure
from torch import Tensor
from torch.utils.data import Dataset

from aft_lens.data import FileBatches, ResidentBatches
from aft_lens.models import VisionModel
from analyses.pruning.criteria import score
from analyses.pruning.cutting.compact import compact_model, masked_model
from analyses.pruning.cutting.finetune import finetune as train_on
from analyses.pruning.cutting.heads import droppable_heads
from analyses.pruning.cutting.masks import select
from analyses.pruning.measuring import ladder_figure
from analyses.pruning.measuring.columns import write_csv
from analyses.pruning.measuring.cost import Batches, unsure
from analyses.pruning.measuring.rung import (
    Contender,
    Rung,
    check_agreement,
    check_cut,
    kept_offsets,
    masked_twin,
    measure_rungs,
)
from analyses.result import Result, Table

LOGITS = ("|Δlogit| to parent", "|Δlogit| to masked")
"""Names of the columns of the largest differences of a logit."""


@dataclass(frozen=True)
class PruneLadder(Result):
    """The rungs in order and the last one's model."""

    rows: list[Rung]
    model: VisionModel
    """The compact model of the last rung."""
    images: int
    """Images that accuracy was measured on."""
    seed: int = 0
    name = "ladder"
    size = (10.0, 3.2)

    @property
    def max_logit_difference(self) -> float:
        """The largest difference between a masked and a compact model on any rung."""
        return max((row.max_logit_difference for row in self.rows if row.max_logit_difference is not None), default=0.0)

    def offsets(self) -> list[list[list[list[int]]]]:
        """Kept offsets (Δy, Δx) by layer and head of the compact model."""
        return kept_offsets(self.model)

    def record(self) -> dict[str, Any]:
        """Everything measured."""
        return {
            "images": self.images,
            "seed": self.seed,
            "max_abs_logit_difference": self.max_logit_difference,
            "rungs": self.rows,
            "offsets": self.offsets(),
        }

    def table(self) -> Table:
        """Rungs: offsets a head, accuracy and its change, max |Δlogit| to parent and masked, size, latency, form.

        |Δlogit| to the parent is what cutting changed, to the masked model the parity of the compact one; "–" where a
        rung has none. Latency is the median with its quartiles; the note says where two of them cannot be told apart.
        """
        columns = ("rung", "k", "accuracy %", "change", *LOGITS, "kB", "ms / batch", "form")
        return Table(columns, [_cells(row) for row in self.rows], note=self.unsure())

    def unsure(self) -> str:
        """A sentence where it is not known which of parent and last rung is faster; empty where it is."""
        first, last = self.rows[0], self.rows[-1]
        if first.latency is None or last.latency is None:
            return ""
        return unsure((first.name, last.name), first.latency, last.latency)

    def plot(self, figure: Figure | SubFigure) -> None:
        """Accuracy, size and latency by rung, with intervals where there are any."""
        ladder_figure.draw(figure, self.rows, self.images)

    def interactive(self) -> go.Figure:
        """The same three panels."""
        return ladder_figure.interactive(self.rows, self.images)

    def save(self, out: Path | str, name: str | None = None) -> list[Path]:
        """Besides what every result writes, the rungs as CSV."""
        paths = super().save(out, name)
        return [paths[0], write_csv(self.rows, paths[0].with_suffix(".csv")), *paths[1:]]


def _cells(row: Rung) -> list[str]:
    """A rung as it is printed."""
    low, high = (100 * end for end in row.accuracy_interval)
    return [
        row.name,
        f"{row.keep:g}" if row.keep == int(row.keep) else f"{row.keep:.2f}",
        f"{100 * row.accuracy:.2f} [{low:.1f}, {high:.1f}]",
        f"{100 * row.difference:+.2f}",
        *("–" if gap is None else f"{gap:.1e}" for gap in (row.logit_change, row.max_logit_difference)),
        f"{row.bytes / 1e3:.1f}",
        "–" if row.latency is None else str(row.latency),
        row.form,
    ]


def prune_to_indexing(
    model: VisionModel,
    batches: Batches,
    keep: float = 1,
    *,
    criterion: str = "magnitude",
    budget: str = "head",
    calibration: Batches | None = None,
    train: Dataset | ResidentBatches | FileBatches | None = None,
    finetune: int = 0,
    steps: Sequence[float] = (),
    drop_heads: float | None = None,
    seed: int = 0,
    batch_sizes: Sequence[int] = (64,),
    seconds: float = 0.6,
) -> PruneLadder:
    """Cut every head to its `keep` best offsets and measure parent, masked dense and compact model.

    `batches` are the fixed test images; `calibration` the ones a measured criterion is computed on (by default
    `batches` themselves: give others for an honest accuracy). Rows are "parent", "masked", "indexed" and, with
    `finetune` epochs on the images of `train`, "fine-tuned"; the result's `model` is the last, ready for
    `save_checkpoint`. With `steps` (offsets a head, falling) pruning is iterative: the model is cut to each and
    fine-tuned there before the last cut to `keep`. With `drop_heads` the biases of whole heads then go, cheapest
    first, as long as accuracy on the calibration images falls by at most so much (0 to 1).

    Raises ValueError if the model has no global AFT-conv, if a mask that cuts something changes nothing, if masked
    and compact logits differ (see `check_agreement`), or if there is something to fine-tune and no `train`; errors
    of `score` and `select` as they say.
    """
    if (finetune or steps) and train is None:
        raise ValueError("train must hold the training images for fine-tuning, got None")
    if steps and not finetune:
        raise ValueError("finetune must be 1 or more for iterative pruning (steps), got 0")
    if any(before <= after for before, after in pairwise([*steps, keep])):
        raise ValueError(f"steps must fall and end above keep {keep:g}, got {[*steps]}")
    measured = batches if calibration is None else calibration
    current = model
    for step in steps:
        current = compact_model(current, select(score(current, criterion, measured, seed=seed), step, budget))
        if train is not None:
            current = train_on(current, train, epochs=finetune, seed=seed)
    masks = select(score(current, criterion, measured, seed=seed), keep, budget)
    if drop_heads is not None:
        masks = droppable_heads(current, measured, tolerance=drop_heads, masks=masks).masks
    return measure_masks(
        current,
        masks,
        batches,
        criterion=criterion,
        budget=budget,
        seed=seed,
        batch_sizes=batch_sizes,
        seconds=seconds,
        parent=model,
        train=train,
        finetune=finetune,
    )


def measure_masks(
    model: VisionModel,
    masks: Sequence[Tensor],
    batches: Batches,
    *,
    criterion: str = "given",
    budget: str = "given",
    parent: VisionModel | None = None,
    train: Dataset | ResidentBatches | FileBatches | None = None,
    finetune: int = 0,
    seed: int = 0,
    batch_sizes: Sequence[int] = (64,),
    seconds: float = 0.6,
) -> PruneLadder:
    """The rows of `prune_to_indexing` for masks already chosen; `parent` (by default `model`) is compared with."""
    masked, compact = masked_model(model, masks), compact_model(model, masks)
    check_cut(model, masked, masks, batches)
    origin = Contender("parent", model if parent is None else parent)
    pruned = Contender("masked", masked, criterion=criterion, budget=budget)
    gap = check_agreement(masked, compact, batches)
    contenders = [origin, pruned, replace(pruned, name="indexed", model=compact, max_logit_difference=gap)]
    if finetune and train is not None:
        tuned = train_on(compact, train, epochs=finetune, seed=seed)
        gap = check_agreement(masked_twin(tuned), tuned, batches)
        last = replace(contenders[-1], name="fine-tuned", model=tuned, max_logit_difference=gap)
        contenders.append(replace(last, finetune_epochs=finetune))
    rows = measure_rungs(contenders, batches, batch_sizes=batch_sizes, seconds=seconds, seed=seed)
    return PruneLadder(rows, contenders[-1].model, images=sum(len(labels) for _, labels in batches), seed=seed)
