"""Says when a run waits for its data, and which files it could not read."""

import time
from typing import Any

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader

from aft_lens.data import FileBatches
from aft_lens.data.files.decoders import has_nvimagecodec
from aft_lens.errors import InputError
from aft_lens.progress import note

TOLERATED = 0.1
"""Share of an epoch's time that may pass in waiting for data before a word is said."""
MOST_BAD = 0.1
"""Share of all image files beyond which training ends: another data set than was asked for would be learned."""
LISTED = 5
"""Unreadable files that are named."""


class Waiting(pl.Callback):
    """Measure how much of the first epoch passes between steps, in waiting for the next batch.

    On a GPU that is the time for which the stream that trains has nothing to do between a step's end and the next
    one's start, however far the host runs ahead of it; the first step, which compiles, is left out. After that epoch
    a line says so, and what to change, if it was more than `TOLERATED` of it. After every epoch a line names files
    that were skipped for the first time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.share: float | None = None
        """Of the first epoch, once it is over."""
        self._named: set[str] = set()
        self._gaps: list[tuple[Any, Any]] = []
        self._last: Any = None
        self._started = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin anew."""
        self.share, self._gaps, self._last = None, [], None

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        """A batch is there."""
        if self.share is None and self._last is not None:
            self._gaps.append((self._last, _now(pl_module.device)))

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """The next batch is waited for from here."""
        if self.share is None:
            self._started = time.perf_counter() if self._last is None else self._started
            self._last = _now(pl_module.device)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The epoch's training is over, before it is validated."""
        self._sum_up(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The same without validation; and files that were skipped, with InputError where they are too many."""
        self._sum_up(trainer, pl_module)
        loaders = [trainer.train_dataloader, trainer.val_dataloaders]
        bad = {path: why for loader in loaders if isinstance(loader, FileBatches) for path, why in loader.bad.items()}
        files = sum(len(loader.files) for loader in loaders if isinstance(loader, FileBatches))
        if len(bad) > MOST_BAD * files:
            raise InputError(
                f"{len(bad)} of {files} images cannot be read, too many to train without them: {min(bad.values())}"
            )
        new = [why for path, why in sorted(bad.items()) if path not in self._named]
        self._named |= set(bad)
        if new:
            more = f"; and {len(new) - LISTED} more" if len(new) > LISTED else ""
            note(
                f"data: {len(new)} files cannot be read, other images took their place (data.bad_files stop ends the "
                f"run instead): {'; '.join(new[:LISTED])}{more}"
            )

    def _sum_up(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the first epoch's share, and say it if it is large."""
        if self.share is not None or not self._gaps:
            return
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        waited = sum(_between(*gap) for gap in self._gaps)
        self.share, self._gaps = waited / max(time.perf_counter() - self._started, 1e-9), []
        if self.share > TOLERATED and trainer.is_global_zero:
            said = f"training waited for data {100 * self.share:.0f} % of the first epoch: {_advice(trainer)}"
            note(said + _taken(trainer.train_dataloader))


def _advice(trainer: pl.Trainer) -> str:
    """What to change about a loader that is too slow."""
    loader = trainer.train_dataloader
    if not isinstance(loader, FileBatches | DataLoader):  # in memory, on the device
        return "its augmentation takes so long; raise data.batch_size, or choose another data.augment"
    workers = loader.workers if isinstance(loader, FileBatches) else loader.num_workers
    more = f"raise data.workers, which is {workers}"
    if not isinstance(loader, FileBatches):
        return f"{more}, or set data.resident true for data that is held in memory"
    if loader.on_device:
        better = "" if has_nvimagecodec() else "; install aft-lens[gpu], whose decoder hardly waits for the training"
        return f"{more}, if processor cores are free{better}; PNG and other files are quicker as JPEG"
    return f"{more}, if processor cores are free, or store smaller images"


def _taken(loader: Any) -> str:
    """What a batch of files takes, stage by stage; nothing where they are not made ahead."""
    taken = loader.milliseconds if isinstance(loader, FileBatches) else {}
    words = ", ".join(f"{name} {value:.0f}" for name, value in taken.items())
    return f" (at the same time, ms a batch: {words})" if words else ""


def _now(device: torch.device) -> Any:
    """A moment of the device's stream, or of the clock."""
    if device.type == "cuda":
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(device))
        return event
    return time.perf_counter()


def _between(before: Any, after: Any) -> float:
    """Seconds between two moments."""
    return before.elapsed_time(after) / 1e3 if isinstance(before, torch.cuda.Event) else after - before
