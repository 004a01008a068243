"""The question as one result: fractions by head, effects of single edits, and curves of cumulative ones."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from tqdm import tqdm

from aft_lens.extraction import AFTReader, AttentionReader
from analyses.explain.causal import REMOVALS, Batches, Effect, Head, Outcome, compare, outcome, substituted, without
from analyses.explain.figure import Curve, Drawing, Panel, draw, interactive
from analyses.explain.position import REPLACEMENTS, HeadPositions, head_positions
from analyses.figures import rounded
from analyses.provenance import environment

WORDS = {
    "map": "own map",
    "uniform": "uniform",
    "other": "next head's map",
    "window": "own map in the window",
    "no bias": "w = 0",
    "no offset": "strongest offset's w = 0",
    "no keys": "K = 0",
}
"""Edits as figures and tables name them."""
MOST_STEPS = 12
"""Points of a cumulative curve at most, evenly spread over the number of replaced heads."""


@dataclass(frozen=True)
class Explanation:
    """Whether position explains each head of a model: by the numbers, and by what edits do."""

    source: str
    positions: HeadPositions
    intact: Outcome
    single: dict[str, list[list[Effect]]]
    """By edit, layer and head: that one head edited."""
    order: Int[np.ndarray, "step 2"]
    """(layer, head) by rising damage of the head's own map in the calibration images' loss."""
    counts: tuple[int, ...]
    """How many heads, the first ones of `order`, are replaced at each point of the curves."""
    cumulative: dict[str, list[Effect]]
    """By edit: those heads at once."""
    window: int
    """Side of the "window" replacement, in patches."""
    layers: tuple[int, ...]
    """Layers whose heads were edited: the rows of `single`."""
    labels: str
    """"data", or "model": accuracy is agreement with the intact model."""
    device: str
    """What it was measured on."""

    def values(self, edit: str, field: str) -> Float[np.ndarray, "layer head"]:
        """One number of every single-head effect: accuracy, change or loss."""
        return np.array([[getattr(effect, field) for effect in row] for row in self.single[edit]])

    def save(self, out: Path, *, command: str = "") -> list[Path]:
        """Write explain.json, .png, .svg and .html into a folder and return their paths; `command` is recorded."""
        out.mkdir(parents=True, exist_ok=True)
        paths = [out / f"explain.{kind}" for kind in ("json", "png", "svg", "html")]
        paths[0].write_text(json.dumps(self.record(command)) + "\n")
        draw(self.drawing(), paths[1:3])
        interactive(self.drawing()).write_html(paths[3], include_plotlyjs=True)
        return paths

    def drawing(self) -> Drawing:
        """The figure's content."""
        whole = range(len(self.positions.maps))
        fractions = [
            Panel(title, values.numpy(), values.numpy(), _fraction_words(values.numpy()), whole)
            for title, values in (
                ("variance explained by offset", self.positions.variance),
                ("information explained by offset", self.positions.divergence),
            )
        ]
        effects = [
            Panel(
                WORDS[edit], self.values(edit, "loss"),
                100 * self.values(edit, "change"), [[_words(effect) for effect in row] for row in rows], self.layers,
            )
            for edit, rows in self.single.items()
        ]  # fmt: skip
        curves = [
            Curve(
                WORDS[edit], [100 * effect.change for effect in row], [100 * effect.interval[0] for effect in row],
                [100 * effect.interval[1] for effect in row],
            )
            for edit, row in self.cumulative.items()
        ]  # fmt: skip
        title = (
            f"{self.source}: {100 * self.intact.accuracy:.1f} % of {len(self.intact.right)} images intact"
            + (" (agreement with itself)" if self.labels == "model" else "")
        )  # fmt: skip
        return Drawing(title, fractions, effects, self.counts, curves)

    def record(self, command: str = "") -> dict[str, Any]:
        """Everything as plain values; NaN is null."""
        low, high = self.intact.interval
        return {
            "source": self.source,
            "command": command,
            **environment(self.device),
            "grid": list(self.positions.grid),
            "window": self.window,
            "layers": list(self.layers),
            "labels": self.labels,
            "calibration_images": self.positions.images,
            "images": len(self.intact.right),
            "accuracy": self.intact.accuracy,
            "accuracy_interval": [low, high],
            "variance_explained": _plain(self.positions.variance.numpy()),
            "divergence_explained": _plain(self.positions.divergence.numpy()),
            "information_nats": _plain(self.positions.information.numpy()),
            "to_patches": _plain(1 - self.positions.columns.sum(-1).numpy()),
            "single": {
                edit: [[asdict(effect) for effect in row] for row in rows] for edit, rows in self.single.items()
            },
            "order": self.order.tolist(),
            "counts": list(self.counts),
            "cumulative": {edit: [asdict(effect) for effect in row] for edit, row in self.cumulative.items()},
            "maps": rounded(self.positions.maps.numpy()),
        }


def explain(
    reader: AttentionReader,
    calibration: Batches,
    test: Batches,
    *,
    window: int | None = None,
    labels: str = "data",
    layers: Sequence[int] | None = None,
    progress: bool = False,
) -> Explanation:
    """Measure how far position explains a model's heads, and what the model loses where they see nothing else.

    Maps, fractions and the order of the curves come from `calibration`, all accuracies from `test`, both batches of
    (images, labels) as the model takes them, the model in evaluation mode. Each head is replaced alone by each of
    `REPLACEMENTS`, and an AFT-conv's head is also robbed of each of `REMOVALS`; then the heads of least damage together
    with more and more of the others. `layers` limits the edited heads to those layers' (all), `window` is the side of
    the "window" replacement, odd (about half the grid's shorter side). This takes about heads x (edits + 1) passes
    over the images. Raises ValueError on a bad window or layer, and as `head_positions` and `outcome` do.
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
        tuple(chosen), labels, str(next(reader.model.parameters()).device),
    )  # fmt: skip


def _plain(values: np.ndarray) -> list[list[float | None]]:
    """Six significant digits, NaN as None."""
    return [[None if np.isnan(value) else value for value in row] for row in rounded(values)]


def _fraction_words(values: np.ndarray) -> list[list[str]]:
    """A fraction under the pointer."""
    return [
        [f"layer {layer}, head {head}<br>{value:.4f}" for head, value in enumerate(row)]
        for layer, row in enumerate(values)
    ]


def _words(effect: Effect) -> str:
    """An effect under the pointer."""
    return (
        f"accuracy {100 * effect.change:+.2f} points "
        f"[{100 * effect.interval[0]:+.2f}, {100 * effect.interval[1]:+.2f}]<br>"
        f"loss {effect.loss:+.4f} nats [{effect.loss_interval[0]:+.4f}, {effect.loss_interval[1]:+.4f}]"
    )
