"""The LightningModule of image classifiers: loss, loaders and what is logged."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric

from aft_lens.data import (
    UNCOUNTED,
    DataSource,
    EpochOrder,
    EqualShares,
    FileBatches,
    ResidentBatches,
    Resumable,
    Seeded,
    batch_transform,
    drawn_from_files,
    reading_workers,
    share_size,
)
from aft_lens.data.source import Transformed
from aft_lens.training.gumbel_health import single_positions
from aft_lens.training.module import TrainedModule
from aft_lens.training.recipe import Recipe
from aft_lens.training.sparsity import bias_entropy, expected_positions, scheduled_temperature

Loader = DataLoader | FileBatches | ResidentBatches
EVAL_BATCH = 250
"""Images a validation step; divides the usual splits, so that a compiled model sees one shape."""


class Classifier(TrainedModule):
    """Cross entropy plus Eq. 9."""

    items = "images"
    recipe: Recipe

    def __init__(self, recipe: Recipe, data: DataSource) -> None:
        super().__init__(recipe)
        self.data = data
        # Means of single images: shares of processes may differ, which Lightning's own mean of batches rounds.
        self.val_loss, self.val_accuracy = (MeanMetric(nan_strategy="disable") for _ in range(2))
        self._mix = batch_transform(recipe.model.num_classes, recipe.data.mixup, recipe.data.cutmix)

    def share(self, processes: int) -> int:
        """Images that each of the processes trains on in an epoch."""
        return share_size(len(self.data.train), processes, filled=not self.recipe.data.resident)

    def train_dataloader(self) -> Loader:
        """Training images in a random order, the last incomplete batch dropped."""
        self._seed()
        self._seeded = True
        if self.recipe.data.resident:
            return self._resident("train", self.batch_size, self.recipe.data.augment, self._epoch_seed)
        train = self.data.train
        order = EpochOrder(
            train, self._epoch_seed, repeats=self.recipe.data.repeats, processes=self.trainer.world_size,
            rank=self.global_rank,
        )  # fmt: skip
        if drawn_from_files(train):
            return self._files(train, self.batch_size, order=order)
        return Resumable(Seeded(train), self.batch_size, order, **self._workers())

    def val_dataloader(self) -> Loader:
        """Validation images in their order."""
        if self.recipe.data.resident:
            return self._resident("val", EVAL_BATCH)
        if drawn_from_files(self.data.val):
            return self._files(self.data.val, EVAL_BATCH, share=(self.global_rank, self.trainer.world_size))
        return DataLoader(EqualShares(self.data.val, self.trainer.world_size), EVAL_BATCH, **self._workers())

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the temperature of this step."""
        super().on_train_batch_start(batch, batch_idx)
        temperature = scheduled_temperature(self.recipe.sparsity, self.recipe.model.temperature, self._progress())
        for bias in single_positions(self.model):
            if bias.temperature != temperature:
                bias.temperature = temperature

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Loss of one batch."""
        images, labels = batch
        targets = labels
        if self._mix is not None:
            images, targets = self._mix(images, labels)
        logits = self.model(images)
        loss = F.cross_entropy(logits, targets, label_smoothing=self.recipe.data.label_smoothing)
        accuracy = (logits.argmax(1) == labels).float().mean()
        self._log({"train_loss": loss.detach(), "train_accuracy": accuracy}, len(labels))
        for name, weight, terms in (
            ("train_entropy_sum", self.recipe.sparsity.entropy_weight, bias_entropy),
            ("train_positions_sum", self.recipe.sparsity.gate_weight, expected_positions),
        ):
            if weight:
                total = torch.cat(terms(self.model)).sum()
                self._log({name: total.detach()}, len(labels))
                loss = loss + weight * total
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Loss and accuracy of one batch, hard positions."""
        images, labels = batch
        logits = self.model(images)
        counted = labels != UNCOUNTED
        logits, labels = logits[counted], labels[counted]
        self.val_loss.update(F.cross_entropy(logits, labels, reduction="none"))
        self.val_accuracy.update((logits.argmax(1) == labels).float())
        self.log_dict({"val_loss": self.val_loss, "val_accuracy": self.val_accuracy}, prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        """Log the entropy of each layer's biases."""
        layers = [entropy.mean().detach() for entropy in bias_entropy(self.model)]
        if layers:
            values = {f"entropy/layer_{i}": value for i, value in enumerate(layers)}
            self.log_dict({**values, "entropy/mean": torch.stack(layers).mean()}, sync_dist=True)

    def _resident(
        self, part: str, size: int, augment: str = "none", order: Callable[[], int] | None = None
    ) -> ResidentBatches:
        """This process's share of a split on the training device."""
        share = (self.global_rank, self.trainer.world_size)
        return ResidentBatches(self.data, part, size, device=self.device, augment=augment, order=order, share=share)

    def _files(self, split: Transformed, size: int, **options: Any) -> FileBatches:
        """This process's share of a split of image files."""
        return FileBatches(
            split, size, device=self.device, workers=self._count(files=True), bad_files=self.recipe.data.bad_files,
            **options,
        )  # fmt: skip

    def _count(self, *, files: bool) -> int:
        """Loader processes: where their number is left open, for image files all cores, for the rest none."""
        count = self.recipe.data.workers
        if isinstance(count, int):
            return count
        return reading_workers(self.trainer.num_devices) if files else 0

    def _workers(self) -> dict[str, Any]:
        """Loader options."""
        count = self._count(files=isinstance(self.data.train, Transformed))
        # A loader draws a number for its workers, where it makes them: not from the state that training draws from.
        pinned = self.device.type == "cuda"
        return {
            "num_workers": count, "persistent_workers": count > 0, "generator": torch.Generator(), "pin_memory": pinned,
        }  # fmt: skip
