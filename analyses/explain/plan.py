"""What is edited in an explanation, and what the edits are judged by."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aft_lens.extraction import AFTReader, AttentionReader
from analyses.explain.causal import REMOVALS, Head
from analyses.explain.position import REPLACEMENTS

MOST_STEPS = 12
"""Points of a cumulative curve at most, evenly spread over the number of replaced heads."""


@dataclass(frozen=True)
class Plan:
    """The edits of one model's heads; `plan_for` makes it."""

    window: int
    """Side of the "window" replacement, odd, in patches."""
    layers: tuple[int, ...]
    """Layers whose heads are edited."""
    heads: tuple[Head, ...]
    """Those heads, (layer, head), layer by layer."""
    edits: tuple[str, ...]
    """Of `REPLACEMENTS`, and of `REMOVALS` for an AFT-conv."""
    single: bool
    """True: each head is edited alone, too, and the curves start with the heads whose own map does least damage. False:
    curves alone, from the heads that offsets explain most of."""
    counts: tuple[int, ...]
    """How many heads are edited at each point of the curves."""
    labels: str
    """"data", or "model": accuracy is agreement with the intact model."""
    data: str
    """Name of the images' data set."""
    bfloat16: bool
    """True: accuracies, intact and edited, under autocast to bfloat16; maps are float32 all the same."""


def plan_for(
    reader: AttentionReader,
    *,
    window: int | None = None,
    layers: Sequence[int] | None = None,
    edits: Sequence[str] | None = None,
    single: bool = True,
    counts: Sequence[int] | None = None,
    labels: str = "data",
    data: str = "",
    bfloat16: bool = False,
) -> Plan:
    """The plan for a model: all heads and edits, a window of half the grid's side and twelve counts if left out.

    Raises ValueError, naming the argument, on what the model cannot take.
    """
    window = 2 * (min(reader.grid) // 4) + 1 if window is None else window
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window must be odd and 1 or more, got {window}")
    depth = len(reader.layers)
    chosen = tuple(range(depth) if layers is None else layers)
    if not all(0 <= layer < depth for layer in chosen) or not chosen:
        raise ValueError(f"layers must be from 0 to {depth - 1}, got {list(chosen)}")
    heads = tuple((layer, head) for layer in chosen for head in range(reader.num_heads))
    known = (*REPLACEMENTS, *(REMOVALS if isinstance(reader, AFTReader) else ()))
    if edits is not None and (not edits or not set(edits) <= set(known)):
        raise ValueError(f"edits must be some of {', '.join(known)} for this model, got {list(edits)}")
    steps = np.linspace(1, len(heads), min(MOST_STEPS, len(heads))).round().astype(int).tolist()
    points = sorted(set(steps if counts is None else counts))
    if not points or points[0] < 1 or points[-1] > len(heads):
        raise ValueError(f"counts must be from 1 to {len(heads)}, the heads that are edited, got {points}")
    return Plan(window, chosen, heads, tuple(edits or known), single, tuple(points), labels, data, bfloat16)
