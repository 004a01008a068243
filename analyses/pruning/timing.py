"""The latencies of a sweep's rungs, taken after everything else so that nothing runs beside them."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from aft_lens.checkpoint import Checkpoint, load_checkpoint
from aft_lens.models import VisionModel
from analyses.pruning.compact import compact_model, dense_biases, layer_forms, masked_model
from analyses.pruning.measure import latencies_by_device
from analyses.pruning.plan import Place, Plan

MODELS = ("parent", "masked", "indexed")


def time_rungs(plan: Plan, rows: Sequence[dict[str, Any]]) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Fill in the latencies of parent, masked and indexed model of every row that lacks this plan's.

    Models are built from the parent and a row's offsets (fine-tuning moves weights and no time) and take turns on
    random images. Rows of a parent whose layers run the same forms with as many offsets are timed once. Yields each
    row as it is done.
    """
    loaded: Checkpoint | None = None
    done: dict[tuple[object, ...], dict[str, Any]] = {}
    how = {"batch_sizes": list(plan.batch_sizes), "seconds": plan.seconds, "threads": torch.get_num_threads()}
    for place, row in zip(plan.places(), rows, strict=True):
        if row["latencies"] and row["timing"] == how:
            continue
        if loaded is None or str(loaded.path) != place.checkpoint:
            loaded, done = load_checkpoint(place.checkpoint, plan.device), {}
        masks = masks_of(row["offsets"], dense_biases(loaded.model))
        compact = compact_model(loaded.model, masks)
        key = (*layer_forms(compact), *compact.config.keep)
        if key not in done:
            done[key] = _time(plan, [loaded.model, masked_model(loaded.model, masks), compact])
        row["latencies"], row["timing"] = done[key], how
        yield place, row


def _time(plan: Plan, models: Sequence[VisionModel]) -> dict[str, Any]:
    """Latencies by model."""
    taken = latencies_by_device(models, random_images(models[0]), batch_sizes=plan.batch_sizes, seconds=plan.seconds)
    return {name: [asdict(each) for each in times] for name, times in zip(MODELS, taken, strict=True)}


def random_images(model: VisionModel) -> Tensor:
    """Eight images of noise of a model's own size."""
    config = model.config
    return torch.randn(8, config.in_chans, config.img_size, config.img_size)


def masks_of(offsets: Sequence[Any], biases: Sequence[Tensor]) -> list[Tensor]:
    """Masks (`h y x` a layer) of kept offsets (Δy, Δx) by layer and head, shaped and placed as `biases`."""
    masks = []
    for layer, w in zip(offsets, biases, strict=True):
        mask = torch.zeros_like(w, dtype=torch.bool)
        for head, kept in enumerate(layer):
            for dy, dx in kept:
                mask[head, dy + w.shape[1] // 2, dx + w.shape[2] // 2] = True
        masks.append(mask)
    return masks
