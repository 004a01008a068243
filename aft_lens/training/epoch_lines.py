"""What a run tells while it trains: a line an epoch on stderr and, on a terminal, a bar of the epoch that goes on."""

import sys
import time
from typing import Any

import lightning.pytorch as pl
from tqdm import tqdm

SHOWN = ("train_loss", "val_loss", "val_accuracy", "val_bits")
"""The metrics of a line, where the run has them."""


class EpochLines(pl.Callback):
    """Print each epoch's metrics and seconds on stderr; of processes that train together the first one speaks.

    A terminal also sees a bar of the epoch's steps, gone when its line comes; a file or a pipe gets lines alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bar: tqdm | None = None
        self.start = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock, and the bar on a terminal."""
        self.start = time.perf_counter()
        if trainer.is_global_zero and sys.stderr.isatty():
            total = int(trainer.num_training_batches)
            self.bar = tqdm(total=total, desc=_epoch(trainer), leave=False, file=sys.stderr)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """A step further."""
        if self.bar is not None:
            self.bar.update()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The epoch's line, after its validation."""
        self._close()
        if not trainer.is_global_zero:
            return
        numbers = [f"{name} {float(value):.4f}" for name in SHOWN
                   if (value := trainer.callback_metrics.get(name)) is not None]  # fmt: skip
        seconds = time.perf_counter() - self.start
        print("  ".join([_epoch(trainer), *numbers, f"{seconds:.1f} s"]), file=sys.stderr, flush=True)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """No bar is left in the way of what is said of the error."""
        self._close()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def _epoch(trainer: pl.Trainer) -> str:
    """The epoch's number of all, as wide as the last one's."""
    last = str(trainer.max_epochs)
    return f"epoch {trainer.current_epoch + 1:>{len(last)}}/{last}"
