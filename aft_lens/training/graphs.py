"""The model's passes of a training step as CUDA graphs."""

from typing import Any

import lightning.pytorch as pl
import torch


class CudaGraphs(pl.Callback):
    """Capture forward and backward pass at the first training batch, and replay them at every later one.

    The host then launches two graphs a step and not a thousand kernels, which takes a small model's step longer than
    the kernels themselves. Loss, clipping and optimizer stay as they are, and so does evaluation. Batches must have
    one shape. Sampling goes on with the random numbers that it would have had without capturing.
    """

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        """Capture once: from then on the model's forward pass is the graphs'."""
        model, images = pl_module.get_submodule("model"), batch[0]
        if "forward" in vars(model):
            return
        # Gradients are accumulated on streams of the capture, which the engine waits for and would warn of.
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
        with torch.random.fork_rng(devices=[images.device]), trainer.precision_plugin.forward_context():
            # A cached cast would be of the capture's weights for ever.
            mixed, kind = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
            with torch.autocast("cuda", dtype=kind, enabled=mixed, cache_enabled=False):
                torch.cuda.make_graphed_callables(model, (images,))

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give the model its own forward pass back, and the graphs' memory free."""
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(True)
        vars(pl_module.get_submodule("model")).pop("forward", None)
