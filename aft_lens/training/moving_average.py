"""The exponential moving average of a model's weights."""

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn


class MovingAverage(WeightAveraging):
    """Average the weights over steps, on the device that trains; validate and save the average.

    decay: the average's share that stays at a step, in [0, 1). Batch norm's running statistics are averaged too;
    buffers of whole numbers and truth values (offsets that are kept, counts) are those of the model.

    Lightning's own `EMAWeightAveraging` is made before the model is on its device and stays on the CPU, goes tensor by
    tensor, and rounds whole numbers toward zero at every step.
    """

    def __init__(self, decay: float) -> None:
        average = get_ema_multi_avg_fn(decay)

        def update(averaged: list[Tensor], current: list[Tensor], count: Any) -> None:
            """One step, for tensors of one device and type."""
            if averaged[0].is_floating_point():
                average(averaged, current, count)
            else:
                torch._foreach_copy_(averaged, current)

        super().__init__(multi_avg_fn=update)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Make the average where the model will train."""
        pl_module.to(trainer.strategy.root_device)
        super().setup(trainer, pl_module, stage)
