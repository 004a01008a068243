"""The LightningModule that classifiers and decoders share: seeds by epoch, schedule, optimizer, speed."""

import math
import time
from abc import abstractmethod
from typing import Any, ClassVar

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer

from aft_lens.data import epoch_seed
from aft_lens.models import Model, build_model
from aft_lens.training.recipe import AnyRecipe

EMBEDDINGS = ("pos_embed", "cls_token", "embed.weight")
"""Parameters that are no linear transformations and so are not decayed."""


class TrainedModule(pl.LightningModule):
    """AdamW, warm-up and cosine by step, of a recipe's model on its data.

    Every epoch starts from a random state made of seed, epoch and rank, so that a resumed run draws what an
    uninterrupted one draws. The first epoch's loader is iterated before that epoch begins, hence seeded on making.
    """

    items: ClassVar[str]
    """What an epoch counts, in words."""

    def __init__(self, recipe: AnyRecipe) -> None:
        super().__init__()
        self.recipe = recipe
        self._seeded = False
        self._started: float | None = None
        self._first = 0
        self.model: Any = build_model(recipe.model)
        if recipe.trainer.compile:
            compile_blocks(self.model, recipe.trainer.compile_mode)

    @property
    def batch_size(self) -> int:
        """Items a process and step, once their number is settled."""
        size = self.recipe.data.batch_size
        if isinstance(size, str):
            raise ValueError("data.batch_size auto must be settled before a model is trained; give a number")
        return size

    def forward(self, x: Tensor) -> Tensor:
        """The model's logits."""
        return self.model(x)

    @abstractmethod
    def share(self, processes: int) -> int:
        """Items that each of the processes trains on in an epoch."""

    def on_train_epoch_start(self) -> None:
        """Seed this epoch and process, unless its loader was just made."""
        if not self._seeded:
            self._seed()
        self._seeded = False
        self.trainer.strategy.barrier()  # processes leave the epoch before at different times
        self._started, self._first = time.perf_counter(), 0

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Start the clock in an epoch that goes on, which does not begin."""
        if self._started is None:
            self._started, self._first, self._seeded = time.perf_counter(), batch_idx, False

    def on_train_batch_end(self, outputs: Any, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log the speed of the epoch after its last step, once the device has finished it."""
        if batch_idx + 1 < self.trainer.num_training_batches:
            return
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        assert self._started is not None
        items = (batch_idx + 1 - self._first) * len(batch[1]) * self.trainer.world_size
        rate = items / (time.perf_counter() - self._started)
        self.log(f"{self.items}_per_second", rate, on_step=False, on_epoch=True, prog_bar=True, sync_dist=True)
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self.device) / 2**20
            self.log("peak_memory_mib", peak, on_step=False, on_epoch=True, reduce_fx="max", sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW in groups (decayed, spared, position biases) and the schedule by step."""
        optim = self.recipe.optim
        named = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        biases = [p for name, p in named if ".position_bias." in name]
        embeddings = [p for name, p in named if name in EMBEDDINGS]
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
        limit = self.recipe.trainer.limit_batches
        batches = self.share(processes) // self.batch_size
        return min(batches, limit) if isinstance(limit, int) else int(batches * limit)

    def _epoch_seed(self) -> int:
        """Random state of the present epoch, counted in steps: a loader is made while a resumed Trainer still counts
        the epoch before."""
        epoch = self.global_step // self.steps_per_epoch(self.trainer.world_size)
        return epoch_seed(self.recipe.seed, epoch)

    def _seed(self) -> None:
        """Seed the present epoch and process."""
        torch.manual_seed(self._epoch_seed() * 1_009 + self.global_rank)

    def _log(self, values: dict[str, Tensor], count: int) -> None:
        """Log epoch means over all processes."""
        self.log_dict(values, on_step=False, on_epoch=True, prog_bar=True, sync_dist=True, batch_size=count)


def compile_blocks(model: Model, mode: str = "default") -> None:
    """Compile block by block: blocks of one shape share their code, which takes a fraction of the whole model's time.

    Blocks that differ are compiled each on its own: in training those under stochastic depth, which grows from block
    to block.
    """
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, 2 * len(model.blocks) + 2)
    for block in model.blocks:
        block.compile(mode=mode)
