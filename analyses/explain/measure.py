"""Measuring an explanation: fractions by head, single edits, and curves of cumulative ones."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch

from aft_lens.extraction import AFTReader, AttentionReader
from aft_lens.progress import progress as steps
from analyses.explain.causal import (
    REMOVALS,
    Batches,
    Effect,
    Head,
    Outcome,
    compare,
    outcome,
    substituted,
    without,
)
from analyses.explain.explanation import Explanation
from analyses.explain.plan import Plan, plan_for
from analyses.explain.position import HeadPositions, head_positions
from analyses.explain.probe import ProbedReader
from analyses.store import fingerprint


@dataclass(frozen=True)
class Edited:
    """A model with heads edited, on one of two lists of images; without heads the intact model."""

    edit: str = ""
    """Of `REPLACEMENTS` or `REMOVALS`."""
    heads: tuple[Head, ...] = ()
    calibration: bool = False
    """True: on the images that maps come from, to rank heads by."""

    @property
    def name(self) -> str:
        """Equal for equal models, whatever the order of their heads."""
        return fingerprint(self.edit, sorted(self.heads), self.calibration)


Outcomes = Callable[[Sequence[Edited], str], Sequence[Outcome]]
"""Given edited models and what they are called together, what each makes of its images."""


def explain(
    reader: AttentionReader,
    calibration: Batches,
    test: Batches,
    *,
    plan: Plan | None = None,
    progress: bool = False,
) -> Explanation:
    """Measure how far position explains a model's heads, and what the model loses where they see nothing else.

    Maps, fractions and the order of the curves come from `calibration`, all accuracies from `test`, both batches of
    (images, labels) as the model takes them, the model in evaluation mode. By `plan` (that of `plan_for` with nothing
    given if None) each head is replaced alone by each of `REPLACEMENTS`, and an AFT-conv's head is also robbed of each
    of `REMOVALS`; then the heads of least damage together with more and more of the others. This takes about heads x
    (edits + 1) passes over the images, without single edits counts x edits. Raises ValueError as `head_positions` and
    `outcome` do.
    """
    plan = plan or plan_for(reader)
    positions = head_positions(reader, calibration, progress=progress)

    known: dict[str, Outcome] = {}

    def outcomes(models: Sequence[Edited], words: str) -> list[Outcome]:
        different = {model.name: model for model in models if model.name not in known}
        for name, one in steps(list(different.items()), words, shown=progress, patience=0.0):
            known[name] = edited_outcome(reader, positions, calibration if one.calibration else test, one, plan)
        return [known[model.name] for model in models]

    return explanation(reader, positions, plan, outcomes)


def edited_outcome(
    reader: AttentionReader, positions: HeadPositions, batches: Batches, edited: Edited, plan: Plan
) -> Outcome:
    """What a model whose heads are edited makes of images."""
    device = next(reader.model.parameters()).device
    with ExitStack() as stack:
        if edited.edit in REMOVALS:
            assert isinstance(reader, AFTReader)
            stack.enter_context(without(reader, edited.edit, edited.heads))
        elif edited.heads:
            stack.enter_context(substituted(reader, positions, edited.edit, edited.heads, plan.window))
        stack.enter_context(torch.autocast(device.type, torch.bfloat16, enabled=plan.bfloat16))
        return outcome(reader, batches)


def explanation(reader: AttentionReader, positions: HeadPositions, plan: Plan, outcomes: Outcomes) -> Explanation:
    """All that a plan asks for, whoever measures the edited models."""
    effects: dict[str, list[Effect]] = {}
    if plan.single:
        ranking = [Edited(calibration=True), *(Edited("map", (head,), True) for head in plan.heads)]
        alone = [Edited(edit, (head,)) for edit in plan.edits for head in plan.heads]
        whole, before, *found = outcomes([Edited(), *ranking, *alone], "edits of single heads")
        rank = np.array([compare(before, one).loss for one in found[: len(plan.heads)]])
        changes = iter([compare(whole, one) for one in found[len(plan.heads) :]])
        effects = {edit: [next(changes) for _ in plan.heads] for edit in plan.edits}
    else:  # a uniform head, which has no fraction, comes last
        rank = -np.array([positions.variance[head].nan_to_num(-1.0).item() for head in plan.heads])
    order = [plan.heads[i] for i in np.argsort(rank, kind="stable")]
    together = [Edited(edit, tuple(order[:count])) for edit in plan.edits for count in plan.counts]
    whole, *found = outcomes([Edited(), *together], "edits of more and more heads")
    points = iter([compare(whole, one) for one in found])
    cumulative = {edit: [next(points) for _ in plan.counts] for edit in plan.edits}
    width = reader.num_heads
    return Explanation(
        reader.source, positions, whole,
        {edit: [row[i : i + width] for i in range(0, len(row), width)] for edit, row in effects.items()},
        np.array(order), cumulative, plan, str(reader.device),
        reader.probe if isinstance(reader, ProbedReader) else None,
    )  # fmt: skip
