"""The latencies of a sweep's rungs, taken after everything else so that nothing runs beside them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from aft_lens.checkpoint import Checkpoint, load_checkpoint
from aft_lens.models import VisionModel
from analyses.pruning.cutting.compact import compact_model, dense_biases, layer_forms, masked_model
from analyses.pruning.evidence.plan import Place, Plan
from analyses.pruning.evidence.row import Offsets, RungRow, Timing
from analyses.pruning.measuring.cost import Latency, latencies_by_device

MODELS = ("parent", "masked", "indexed")


def time_rungs(plan: Plan, rows: Sequence[RungRow]) -> Iterator[tuple[int, Place, RungRow]]:
    """Latencies of parent, masked and indexed model for every row that lacks this plan's.

    Models are built from the parent and a row's offsets (fine-tuning moves weights and no time) and take turns on
    random images. Rows of a parent whose layers run the same forms with as many offsets are timed once. Yields number,
    place and timed row as it is done.
    """
    loaded: Checkpoint | None = None
    done: dict[tuple[object, ...], dict[str, tuple[Latency, ...]]] = {}
    how = Timing(tuple(plan.batch_sizes), plan.seconds, torch.get_num_threads())
    for number, (place, row) in enumerate(zip(plan.places(), list(rows), strict=True)):
        if row.latencies and row.timing == how:
            continue
        if loaded is None or str(loaded.path) != place.checkpoint:
            loaded, done = load_checkpoint(place.checkpoint, plan.device), {}
        masks = masks_of(row.offsets, dense_biases(loaded.model))
        compact = compact_model(loaded.model, masks)
        key = (*layer_forms(compact), *compact.config.keep)
        if key not in done:
            done[key] = _time(plan, [loaded.model, masked_model(loaded.model, masks), compact])
        yield number, place, replace(row, latencies=done[key], timing=how)


def _time(plan: Plan, models: Sequence[VisionModel]) -> dict[str, tuple[Latency, ...]]:
    """Latencies by model."""
    taken = latencies_by_device(models, random_images(models[0]), batch_sizes=plan.batch_sizes, seconds=plan.seconds)
    return dict(zip(MODELS, taken, strict=True))


def random_images(model: VisionModel) -> Tensor:
    """Eight images of noise of a model's own size."""
    config = model.config
    return torch.randn(8, config.in_chans, config.img_size, config.img_size)


def masks_of(offsets: Offsets, biases: Sequence[Tensor]) -> list[Tensor]:
    """Masks (`h y x` a layer) of kept offsets (Δy, Δx) by layer and head, shaped and placed as `biases`."""
    masks = []
    for layer, w in zip(offsets, biases, strict=True):
        mask = torch.zeros_like(w, dtype=torch.bool)
        for head, kept in enumerate(layer):
            for dy, dx in kept:
                mask[head, dy + w.shape[1] // 2, dx + w.shape[2] // 2] = True
        masks.append(mask)
    return masks
