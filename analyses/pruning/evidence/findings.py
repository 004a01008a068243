"""What a ladder says beyond its curves: structure over seeds, heads without a bias, receptive fields, whole models."""

import importlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from aft_lens.checkpoint import load_checkpoint, read_metrics
from aft_lens.models import create_model
from aft_lens.statistics import Interval
from analyses.learned.starts import check_starts
from analyses.pruning.criteria import score
from analyses.pruning.cutting.compact import compact_model, masked_model
from analyses.pruning.cutting.heads import droppable_heads
from analyses.pruning.cutting.masks import select
from analyses.pruning.evidence.agreement import NULLS, agreement
from analyses.pruning.evidence.latencies import MODELS, random_images
from analyses.pruning.evidence.receptive_field import receptive_field
from analyses.pruning.evidence.row import RungRow
from analyses.pruning.images import load_images
from analyses.pruning.measuring.cost import Latency, latencies_by_device, predict
from analyses.pruning.measuring.ladder import measure_masks

WHOLE_MODEL = "aft_conv_tiny_11_32"
"""The paper's tiny AFT-conv: 14 x 14 positions, d = 192, window 11, 32 heads, 12 layers."""
FIELD_IMAGES = 32
"""Test images whose gradients are averaged to a receptive field."""
EXPORTED = 8
"""Test images of an export's parity check."""
Found = dict[str, Any]
"""A finding by the names of its record: those of a result's own fields, and whose it is."""


@dataclass(frozen=True)
class DroppedHeads:
    """Heads of a checkpoint that go to AFT-simple entirely."""

    parent: str
    checkpoint: str
    tolerance: float
    heads: int
    dropped: int
    form: str
    accuracy: float
    difference: float
    difference_interval: Interval
    max_abs_logit_difference: float


@dataclass(frozen=True)
class FieldFinding:
    """What `ReceptiveField` says of a checkpoint."""

    parent: str
    checkpoint: str
    rank_correlation: float
    inside_over_outside: float
    reach: tuple[int, int]


@dataclass(frozen=True)
class SingleAgainstDense:
    """Test accuracy of parents trained to one position and of dense ones, mean over seeds."""

    dense: float
    single_position: float
    difference_points: float
    """Single position minus dense."""
    within_one_point: bool
    by_checkpoint: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Gain:
    """How much faster the indexed model is."""

    device: str
    batch: int
    speedup: float


@dataclass(frozen=True)
class WholeModel:
    """Latency of a whole untrained model of the paper, dense, masked and indexed."""

    model: str
    keep: int
    latencies: dict[str, tuple[Latency, ...]]
    dense_over_indexed: list[Gain]


def by_kind(rows: Sequence[RungRow]) -> dict[str, list[str]]:
    """Checkpoints by kind of parent, in the rows' order."""
    kinds: dict[str, list[str]] = {}
    for row in rows:
        kinds.setdefault(row.parent, [])
        if row.checkpoint not in kinds[row.parent]:
            kinds[row.parent].append(row.checkpoint)
    return kinds


def single_against_dense(rows: Sequence[RungRow]) -> SingleAgainstDense | None:
    """Parents trained to one position against dense ones (the paper: 79.9, 80.8); None where one was not swept."""
    accuracy: dict[str, dict[str, float]] = {}
    for row in rows:
        accuracy.setdefault(row.parent, {})[row.checkpoint] = row.accuracy_parent
    if not {"dense", "single position"} <= set(accuracy):
        return None
    dense, single = (fmean(accuracy[kind].values()) for kind in ("dense", "single position"))
    by_checkpoint = {kind: accuracy[kind] for kind in ("dense", "single position")}
    return SingleAgainstDense(dense, single, 100 * (single - dense), single >= dense - 0.01, by_checkpoint)


def structure(kinds: dict[str, list[str]], keeps: Sequence[int], out: Path) -> list[Found]:
    """Overlap of the offsets that seeds keep, by kind of parent and k.

    Offsets are those of largest |exp(w) - 1|. Heads are matched and overlaps set against two permutation baselines.
    """
    found = []
    for (kind, checkpoints), keep in itertools.product(kinds.items(), keeps):
        if len(checkpoints) < 2 or (kind == "single position" and keep > 1):
            continue
        check_starts(checkpoints)
        models = [load_checkpoint(path).model for path in checkpoints]
        runs = [select(score(model, "magnitude"), keep) for model in models]
        for null in NULLS:
            result = agreement(runs, null=null)
            result.save(out / f"{kind.replace(' ', '-')}-{keep}")
            found.append({"parent": kind, **result.record()})
    return found


def dropped(kinds: dict[str, list[str]], calibration: int, device: str, tolerance: float) -> list[DroppedHeads]:
    """Heads that go to AFT-simple entirely, found on training images at one offset a head and tested on test images."""
    found = []
    for kind, checkpoint in ((kind, path) for kind, paths in kinds.items() for path in paths):
        loaded = load_checkpoint(checkpoint, device)
        images = load_images(loaded.data, calibration=calibration, device=device)
        cut = select(score(loaded.model, "magnitude"), 1)
        drops = droppable_heads(loaded.model, images.calibration, tolerance=tolerance, masks=cut)
        ladder = measure_masks(loaded.model, drops.masks, images.test, batch_sizes=())
        last = ladder.rows[-1]
        found.append(
            DroppedHeads(
                kind, checkpoint, tolerance, len(drops.order), len(drops.dropped), last.form, last.accuracy,
                last.difference, last.difference_interval, ladder.max_logit_difference,
            )
        )  # fmt: skip
    return found


def fields(kinds: dict[str, list[str]], out: Path) -> list[FieldFinding]:
    """The composed receptive field of one offset a head against Captum's gradient field, by checkpoint."""
    found = []
    for kind, checkpoint in ((kind, path) for kind, paths in kinds.items() for path in paths):
        loaded = load_checkpoint(checkpoint)
        images = load_images(loaded.data, test=FIELD_IMAGES, calibration=1)
        compact = compact_model(loaded.model, select(score(loaded.model, "magnitude"), 1))
        field = receptive_field(compact, images.test)
        field.save(out / Path(checkpoint).name)
        found.append(FieldFinding(kind, checkpoint, field.rank_correlation, field.inside_over_outside, field.reach))
    return found


def gumbel(variants: dict[str, list[str]]) -> list[Found]:
    """Test accuracy of single-position checkpoints by variant of training, and the health they ended in.

    Health is from the last epoch's validation; `switches` are those of the run's second half.
    """
    found = []
    for variant, checkpoint in ((variant, path) for variant, paths in variants.items() for path in paths):
        loaded = load_checkpoint(checkpoint)
        logits, labels = predict(loaded.model, load_images(loaded.data, calibration=1).test)
        epochs = read_metrics(checkpoint)
        late = epochs[len(epochs) // 2 :]
        last = {name.removeprefix("gumbel/"): value for name, value in epochs[-1].items() if "gumbel/" in name}
        found.append(
            {
                "variant": variant, "checkpoint": checkpoint, "seed": loaded.seed,
                "accuracy": float((logits.argmax(1) == labels).float().mean()), **last,
                "switches": sum(epoch.get("gumbel/switches", 0.0) for epoch in late),
            }
        )  # fmt: skip
    return found


def exports(kinds: dict[str, list[str]], keeps: Sequence[int], out: Path) -> list[Found]:
    """torch.export and ONNX files of the first checkpoint of each kind, with their parity."""
    exporter = importlib.import_module("analyses.export")
    found = []
    for (kind, checkpoints), keep in itertools.product(kinds.items(), keeps):
        loaded = load_checkpoint(checkpoints[0])
        images = load_images(loaded.data, test=EXPORTED, calibration=1)
        compact = compact_model(loaded.model, select(score(loaded.model, "magnitude"), keep))
        folder = out / f"{kind.replace(' ', '-')}-{keep}"
        for result in exporter.export_model(compact, images.test[0][0], folder):
            found.append({"parent": kind, "checkpoint": checkpoints[0], "keep": keep, **result.record()})
    return found


def whole_model(batch_sizes: Sequence[int] = (64, 1), seconds: float = 0.0) -> WholeModel:
    """Time a whole untrained model of the paper, dense, masked and indexed at one offset a head."""
    parent = create_model(WHOLE_MODEL, position_bias="free").eval()
    masks = select(score(parent, "magnitude"), 1)
    models = [parent, masked_model(parent, masks), compact_model(parent, masks)]
    taken = latencies_by_device(models, random_images(parent), batch_sizes=batch_sizes, seconds=seconds)
    gains = [
        Gain(dense.device, dense.batch, dense.median_ms / indexed.median_ms)
        for dense, indexed in zip(taken[0], taken[2], strict=True)
    ]
    return WholeModel(WHOLE_MODEL, 1, dict(zip(MODELS, taken, strict=True)), gains)
