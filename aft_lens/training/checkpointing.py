"""The callback that keeps a run's checkpoint folder whole after every epoch."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from aft_lens.checkpoint import save_checkpoint
from aft_lens.data import DataSource
from aft_lens.data.sequences import SequenceSource
from aft_lens.models import Model, biases, build_model, directions
from aft_lens.training.module import TrainedModule
from aft_lens.training.recipe import AnyRecipe

SNAPSHOTS = 20
"""Epochs at most, evenly spread, whose position biases are kept."""


class Checkpointing(pl.Callback):
    """Write the run's folder after each epoch: weights (averaged ones under EMA), metrics, bias snapshots.

    It must stand before the EMA callback, whose averaged weights are in the module only while it is validated.
    """

    def __init__(
        self, path: Path, recipe: AnyRecipe, data: DataSource | SequenceSource, origin: str | None = None
    ) -> None:
        super().__init__()
        self.path, self.recipe, self.data, self.origin = path, recipe, data, origin
        self.rows: list[dict[str, float]] = []
        self.snapshots: dict[int, dict[str, Tensor]] = {}
        self.first: dict[str, Tensor] = {}
        self.model: Model = build_model(recipe.model)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep where the position biases start, unless the run goes on and has kept it."""
        assert isinstance(pl_module, TrainedModule)
        if not self.first:
            self.first = directions(pl_module.model)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Copy the weights that were validated: under EMA the averaged ones, before they are swapped back."""
        assert isinstance(pl_module, TrainedModule)
        self.model.load_state_dict(pl_module.model.state_dict())

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take this epoch's numbers and biases, and write. Raises FloatingPointError if its loss is no number."""
        epoch = trainer.current_epoch
        numbers = {key: float(value) for key, value in trainer.callback_metrics.items()}
        if not math.isfinite(numbers.get("train_loss", 0.0)):
            raise FloatingPointError(f"train_loss is {numbers['train_loss']}")
        self.rows.append({"epoch": float(epoch), **numbers})
        every = max(1, -(-self.recipe.trainer.epochs // SNAPSHOTS))
        found = biases(self.model)
        if found and (epoch % every == 0 or epoch + 1 == self.recipe.trainer.epochs):
            self.snapshots[epoch] = found
        if trainer.is_global_zero:
            self.write()

    def write(self) -> None:
        """Replace the checkpoint folder by the present state."""
        save_checkpoint(
            self.path,
            self.model,
            data=self.data.record(),
            recipe=asdict(self.recipe),
            seed=self.recipe.seed,
            metrics=self.rows,
            snapshots=self.snapshots,
            first=self.first,
            start=self.origin,
        )

    def state_dict(self) -> dict[str, Any]:
        """Rows and snapshots so far, and where the first weights are from, for the resume file."""
        return {"rows": self.rows, "snapshots": self.snapshots, "first": self.first, "origin": self.origin}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them up again."""
        self.rows, self.snapshots = state_dict["rows"], state_dict["snapshots"]
        self.first, self.origin = state_dict.get("first", {}), state_dict.get("origin")
