"""The model's passes of a training step as CUDA graphs."""

from contextlib import nullcontext
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from aft_lens.device import DEVICE_WORK


class CudaGraphs(pl.Callback):
    """Capture forward and backward pass at the first training batch, and replay them at every later one.

    The host then launches two graphs a step and not a thousand kernels, which in a small model run for a shorter time
    than their launches take. Loss, clipping and optimizer stay as they are, and so does evaluation. Batches must have
    one shape. Capturing leaves random numbers and buffers as they were. Raises RuntimeError if a model cannot be
    captured.
    """

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        """Capture once: from then on the model's forward pass is the graphs'."""
        model, images = pl_module.get_submodule("model"), batch[0]
        if "forward" in vars(model):
            return
        plain = model.forward

        def forward(x: Tensor) -> Tensor:
            """The forward pass, autocast as the Trainer does it in training; a backward pass is not."""
            with trainer.precision_plugin.forward_context() if model.training else nullcontext():
                return plain(x)

        model.forward = forward
        # Gradients are accumulated on streams of the capture, which the engine waits for and would warn of.
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
        kept = [(buffer, buffer.clone()) for buffer in model.buffers()]
        try:
            with DEVICE_WORK.alone(), torch.random.fork_rng(devices=[images.device]):
                torch.cuda.make_graphed_callables(model, (images,))
        except RuntimeError as error:
            raise RuntimeError(f"the model cannot be captured, set trainer.cuda_graphs to false: {error}") from error
        for buffer, before in kept:  # the passes that warm up count for batch norm; graphs hold on to the places
            buffer.copy_(before)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give the model its own forward pass back, and free the graphs' memory."""
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(True)
        vars(pl_module.get_submodule("model")).pop("forward", None)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """The same where training ends early."""
        self.teardown(trainer, pl_module, "fit")
