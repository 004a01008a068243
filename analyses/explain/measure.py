"""Measuring an explanation: fractions by head, single edits, and curves of cumulative ones."""

import sys
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from aft_lens.extraction import AFTReader, AttentionReader
from analyses.explain.causal import REMOVALS, Batches, Head, Outcome, compare, outcome, substituted, without
from analyses.explain.explanation import Explanation
from analyses.explain.position import REPLACEMENTS, head_positions

MOST_STEPS = 12
"""Points of a cumulative curve at most, evenly spread over the number of replaced heads."""


def explain(
    reader: AttentionReader,
    calibration: Batches,
    test: Batches,
    *,
    window: int | None = None,
    labels: str = "data",
    layers: Sequence[int] | None = None,
    data: str = "",
    progress: bool = False,
) -> Explanation:
    """Measure how far position explains a model's heads, and what the model loses where they see nothing else.

    Maps, fractions and the order of the curves come from `calibration`, all accuracies from `test`, both batches of
    (images, labels) as the model takes them, the model in evaluation mode. Each head is replaced alone by each of
    `REPLACEMENTS`, and an AFT-conv's head is also robbed of each of `REMOVALS`; then the heads of least damage together
    with more and more of the others. `layers` limits the edited heads to those layers' (all), `window` is the side of
    the "window" replacement, odd (about half the grid's shorter side), `data` the images' name for the record.
    This takes about heads x (edits + 1) passes over the images. Raises ValueError on a bad window or layer, and as
    `head_positions` and `outcome` do.
    """
    depth = len(reader.layers)
    window = 2 * (min(reader.grid) // 4) + 1 if window is None else window
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window must be odd and 1 or more, got {window}")
    chosen = range(depth) if layers is None else layers
    if not all(0 <= layer < depth for layer in chosen) or not chosen:
        raise ValueError(f"layers must be from 0 to {depth - 1}, got {list(chosen)}")
    heads = [(layer, head) for layer in chosen for head in range(reader.num_heads)]
    positions = head_positions(reader, calibration, progress=progress)
    edits = (*REPLACEMENTS, *(REMOVALS if isinstance(reader, AFTReader) else ()))
    counts = tuple(sorted({round(step) for step in np.linspace(1, len(heads), min(MOST_STEPS, len(heads)))}))
    bar = tqdm(
        total=2 + len(heads) * (1 + len(edits)) + len(counts) * len(edits), desc="edits", unit="pass",
        disable=not progress, file=sys.stderr,
    )  # fmt: skip

    def run(batches: Batches, edit: str = "", which: Sequence[Head] = ()) -> Outcome:
        bar.update()
        if not which:
            return outcome(reader, batches)
        if edit in REMOVALS:
            assert isinstance(reader, AFTReader)
            with without(reader, edit, which):
                return outcome(reader, batches)
        with substituted(reader, positions, edit, which, window):
            return outcome(reader, batches)

    with bar:
        whole, before = run(test), run(calibration)
        damage = [compare(before, run(calibration, "map", [head])).loss for head in heads]
        order = [heads[i] for i in np.argsort(damage, kind="stable")]
        effects = {edit: [compare(whole, run(test, edit, [head])) for head in heads] for edit in edits}
        cumulative = {edit: [compare(whole, run(test, edit, order[:count])) for count in counts] for edit in edits}
    width = reader.num_heads
    single = {edit: [row[i : i + width] for i in range(0, len(row), width)] for edit, row in effects.items()}
    return Explanation(
        reader.source, positions, whole, single, np.array(order), counts, cumulative, window,
        tuple(chosen), labels, str(next(reader.model.parameters()).device), data,
    )  # fmt: skip
