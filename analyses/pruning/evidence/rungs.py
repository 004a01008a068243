"""A rung of a sweep, in whatever process: its parent is opened once there, cut, measured and, if asked for, kept."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor

from aft_lens.checkpoint import load_checkpoint, save_checkpoint
from aft_lens.models import VisionModel
from analyses.cells import share_cores
from analyses.pruning.criteria import score
from analyses.pruning.cutting.masks import select
from analyses.pruning.evidence.plan import Place, Plan
from analyses.pruning.evidence.row import RungRow
from analyses.pruning.images import Images, load_images
from analyses.pruning.measuring.ladder import measure_masks, prune_to_indexing


class Parent:
    """A loaded checkpoint with its images and the scores computed so far."""

    def __init__(self, plan: Plan, checkpoint: str) -> None:
        self.plan = plan
        self.loaded = load_checkpoint(checkpoint, plan.device)
        self.images: Images = load_images(
            self.loaded.data, data=plan.data, test=plan.images, calibration=plan.calibration, seed=plan.seed,
            device=plan.device, batch_size=plan.finetune_batch,
        )  # fmt: skip
        self._scores: dict[str, list[Tensor]] = {}

    def masks(self, place: Place) -> list[Tensor]:
        """The offsets that a one-shot rung keeps."""
        if place.criterion not in self._scores:
            seed = self.plan.seed + self.loaded.seed
            self._scores[place.criterion] = score(
                self.loaded.model, place.criterion, self.images.calibration, seed=seed
            )
        return select(self._scores[place.criterion], place.keep, place.budget)

    def row(self, place: Place, masks: Sequence[Tensor] | None, model: Path) -> RungRow:
        """One row; a one-shot rung keeps `masks`, an iterative one (None) finds its own."""
        plan = self.plan
        options: dict[str, Any] = {
            "criterion": place.criterion, "budget": place.budget, "train": self.images.train,
            "finetune": plan.finetune, "seed": plan.seed, "batch_sizes": (),
        }  # fmt: skip
        if masks is None:
            steps = sorted((each for each in plan.keeps if each > place.keep), reverse=True)
            ladder = prune_to_indexing(
                self.loaded.model, self.images.test, place.keep, calibration=self.images.calibration, steps=steps,
                **options,
            )  # fmt: skip
        else:
            ladder = measure_masks(self.loaded.model, masks, self.images.test, **options)
        if plan.save_models:
            self._save(ladder.model, place, model)
        kept = "" if masks is None else digest(masks)
        return RungRow.of(self.loaded, ladder, place, data=self.images.source, masks=kept)

    def _save(self, model: VisionModel, place: Place, path: Path) -> None:
        """Write a compact model as a checkpoint that says what it was cut from."""
        recipe = {**self.loaded.recipe, "pruned_from": Path(place.checkpoint).name}
        save_checkpoint(path, model, data=self.loaded.data, recipe=recipe, seed=self.loaded.seed, metrics=[])


@lru_cache(maxsize=1)
def opened(plan: Plan, checkpoint: str, revision: str) -> Parent:
    """The parent that this process measures; `revision` tells one that was replaced meanwhile."""
    share_cores()
    return Parent(plan, checkpoint)


def measured(place: Place, masks: Sequence[Tensor] | None, plan: Plan, revision: str, model: Path) -> RungRow:
    """One rung of a sweep; the model is kept at `model` if the plan says so."""
    return opened(plan, place.checkpoint, revision).row(place, masks, model)


def digest(masks: Sequence[Tensor]) -> str:
    """A short hash of which offsets stay."""
    kept = b"".join(mask.cpu().numpy().tobytes() for mask in masks)
    return hashlib.sha256(kept).hexdigest()[:16]
