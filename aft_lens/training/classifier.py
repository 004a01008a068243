"""The LightningModule: loss, schedule and what is logged."""

import math
import time
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric

from aft_lens.data import (
    UNCOUNTED,
    DataSource,
    EpochOrder,
    EqualShares,
    ResidentBatches,
    Seeded,
    batch_transform,
    epoch_seed,
    share_size,
)
from aft_lens.models import VisionModel
from aft_lens.training.gumbel_health import single_positions
from aft_lens.training.recipe import Recipe
from aft_lens.training.sparsity import bias_entropy, expected_positions, scheduled_temperature

EVAL_BATCH = 250
"""Images a validation step; divides the usual splits, so that a compiled model sees one shape."""


class Classifier(pl.LightningModule):
    """Cross entropy plus Eq. 9, AdamW, warm-up and cosine by step.

    Every epoch starts from a random state made of seed, epoch and rank, so that a resumed run draws what an
    uninterrupted one draws. The first epoch's loader is iterated before that epoch begins, hence seeded on making.
    """

    def __init__(self, recipe: Recipe, data: DataSource) -> None:
        super().__init__()
        self.recipe, self.data = recipe, data
        self._seeded = False
        self.model = VisionModel(recipe.model)
        if recipe.trainer.compile:
            compile_blocks(self.model, recipe.trainer.compile_mode)
        # Means of single images: shares of processes may differ, which Lightning's own mean of batches rounds.
        self.val_loss, self.val_accuracy = (MeanMetric(nan_strategy="disable") for _ in range(2))
        self._mix = batch_transform(recipe.model.num_classes, recipe.data.mixup, recipe.data.cutmix)

    def forward(self, images: Tensor) -> Tensor:
        """Class logits."""
        return self.model(images)

    def train_dataloader(self) -> DataLoader | ResidentBatches:
        """Training images in a random order, the last incomplete batch dropped."""
        self._seed()
        self._seeded = True
        if self.recipe.data.resident:
            return self._resident("train", self.recipe.data.batch_size, self.recipe.data.augment, self._epoch_seed)
        train = self.data.train
        order = EpochOrder(
            train, self._epoch_seed, repeats=self.recipe.data.repeats, processes=self.trainer.world_size,
            rank=self.global_rank,
        )  # fmt: skip
        return DataLoader(Seeded(train), self.recipe.data.batch_size, sampler=order, drop_last=True, **self._workers())

    def val_dataloader(self) -> DataLoader | ResidentBatches:
        """Validation images in their order."""
        if self.recipe.data.resident:
            return self._resident("val", EVAL_BATCH)
        return DataLoader(EqualShares(self.data.val, self.trainer.world_size), EVAL_BATCH, **self._workers())

    def on_train_epoch_start(self) -> None:
        """Seed this epoch and process, unless its loader was just made."""
        if not self._seeded:
            self._seed()
        self._seeded = False
        self.trainer.strategy.barrier()  # processes leave the epoch before at different times
        self._started = time.perf_counter()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the temperature of this step."""
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

    def on_train_batch_end(self, outputs: Any, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log the speed of the epoch after its last step, once the device has finished it."""
        if batch_idx + 1 < self.trainer.num_training_batches:
            return
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        images = (batch_idx + 1) * len(batch[1]) * self.trainer.world_size
        rate = images / (time.perf_counter() - self._started)
        self.log("images_per_second", rate, on_step=False, on_epoch=True, prog_bar=True, sync_dist=True)
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self.device) / 2**20
            self.log("peak_memory_mib", peak, on_step=False, on_epoch=True, reduce_fx="max", sync_dist=True)

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

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW in groups (decayed, spared, position biases) and the schedule by step."""
        optim = self.recipe.optim
        named = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        biases = [p for name, p in named if ".position_bias." in name]
        embeddings = [p for name, p in named if name in ("pos_embed", "cls_token")]
        chosen = {id(p) for p in (*biases, *embeddings)}
        decayed = [p for _, p in named if p.ndim > 1 and id(p) not in chosen]
        spared = [p for _, p in named if p.ndim <= 1 and id(p) not in chosen]
        groups = [
            {"params": decayed, "weight_decay": optim.weight_decay},
            {"params": spared + embeddings, "weight_decay": 0.0},
            {"params": biases, "weight_decay": 0.0, "lr": optim.lr * optim.bias_lr_scale},
        ]
        groups = [group for group in groups if group["params"]]
        # A fused step would unscale gradients of 16-bit floats itself, after they were clipped.
        optimizer = torch.optim.AdamW(groups, lr=optim.lr, fused=self.trainer.scaler is None)
        total = self._steps()
        warmup = min(total - 1, round(total * optim.warmup_epochs / self.recipe.trainer.epochs))
        floor = optim.min_lr / optim.lr

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / (warmup + 1)
            progress = (step - warmup) / max(1, total - warmup)
            return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip by norm; Lightning's own refuses fused optimizers in mixed precision."""
        if gradient_clip_val:
            nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    def _progress(self) -> float:
        """Share of the run's steps that are done."""
        return min(1.0, self.global_step / self._steps())

    def _steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.recipe.trainer.epochs * self.steps_per_epoch(self.trainer.world_size)

    def steps_per_epoch(self, processes: int) -> int:
        """Optimizer steps of an epoch; the Trainer's own count would make the loader before a resumed state is in."""
        return max(1, -(-self.batches_per_epoch(processes) // self.recipe.optim.accumulate))

    def batches_per_epoch(self, processes: int) -> int:
        """Whole batches that each process trains on in an epoch."""
        limit, images = self.recipe.trainer.limit_batches, len(self.data.train)
        share = share_size(images, processes, filled=not self.recipe.data.resident)
        batches = share // self.recipe.data.batch_size
        return min(batches, limit) if isinstance(limit, int) else int(batches * limit)

    def _epoch_seed(self) -> int:
        """Random state of the present epoch, counted in steps: a loader is made while a resumed Trainer still counts
        the epoch before."""
        epoch = self.global_step // self.steps_per_epoch(self.trainer.world_size)
        return epoch_seed(self.recipe.seed, epoch)

    def _seed(self) -> None:
        """Seed the present epoch and process."""
        torch.manual_seed(self._epoch_seed() * 1_009 + self.global_rank)

    def _resident(
        self, part: str, size: int, augment: str = "none", order: Callable[[], int] | None = None
    ) -> ResidentBatches:
        """This process's share of a split on the training device."""
        share = (self.global_rank, self.trainer.world_size)
        return ResidentBatches(self.data, part, size, device=self.device, augment=augment, order=order, share=share)

    def _workers(self) -> dict[str, Any]:
        """Loader options."""
        count = self.recipe.data.workers
        # A loader draws a number for its workers, where it makes them: not from the state that training draws from.
        return {"num_workers": count, "persistent_workers": count > 0, "generator": torch.Generator()}

    def _log(self, values: dict[str, Tensor], count: int) -> None:
        """Log epoch means over all processes."""
        self.log_dict(values, on_step=False, on_epoch=True, prog_bar=True, sync_dist=True, batch_size=count)


def compile_blocks(model: VisionModel, mode: str = "default") -> None:
    """Compile block by block: blocks of one shape share their code, which takes a fraction of the whole model's time.

    Blocks that differ are compiled each on its own: in training those under stochastic depth, which grows from block
    to block.
    """
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, 2 * len(model.blocks) + 2)
    for block in model.blocks:
        block.compile(mode=mode)
