"""Measuring an explanation: fractions by head, single edits, and curves of cumulative ones."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
import torch
from tqdm import tqdm

from aft_lens.extraction import AFTReader, AttentionReader
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
from analyses.explain.position import head_positions
from analyses.explain.probe import ProbedReader


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
    single = len(plan.heads) * (1 + len(plan.edits)) + 1 if plan.single else 0
    bar = tqdm(
        total=1 + single + len(plan.counts) * len(plan.edits), desc="edits", unit="pass", file=sys.stderr,
        disable=None if progress else True,
    )  # fmt: skip

    device = next(reader.model.parameters()).device

    def run(batches: Batches, edit: str = "", which: Sequence[Head] = ()) -> Outcome:
        bar.update()
        with ExitStack() as stack:
            if edit in REMOVALS:
                assert isinstance(reader, AFTReader)
                stack.enter_context(without(reader, edit, which))
            elif which:
                stack.enter_context(substituted(reader, positions, edit, which, plan.window))
            stack.enter_context(torch.autocast(device.type, torch.bfloat16, enabled=plan.bfloat16))
            return outcome(reader, batches)

    effects: dict[str, list[Effect]] = {}
    with bar:
        whole = run(test)
        if plan.single:
            before = run(calibration)
            rank = np.array([compare(before, run(calibration, "map", [head])).loss for head in plan.heads])
            effects = {edit: [compare(whole, run(test, edit, [head])) for head in plan.heads] for edit in plan.edits}
        else:  # a uniform head, which has no fraction, comes last
            rank = -np.array([positions.variance[head].nan_to_num(-1.0).item() for head in plan.heads])
        order = [plan.heads[i] for i in np.argsort(rank, kind="stable")]
        cumulative = {
            edit: [compare(whole, run(test, edit, order[:count])) for count in plan.counts] for edit in plan.edits
        }
    width = reader.num_heads
    return Explanation(
        reader.source, positions, whole,
        {edit: [row[i : i + width] for i in range(0, len(row), width)] for edit, row in effects.items()},
        np.array(order), cumulative, plan, str(device),
        reader.probe if isinstance(reader, ProbedReader) else None,
    )  # fmt: skip
