"""Signals that end training in several processes at the same step."""

import signal
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist


class Stopped(SystemExit):
    """Training was asked to end."""


class StopTogether(pl.Callback):
    """End training of several processes by SIGTERM or Ctrl-C at one step, whichever of them hears it.

    Lightning's own handler calls a collective from wherever the signal finds a process, in the middle of another
    collective too, where both wait for ever; and it asks for the result on the device at every step, which then
    waits for the device. Here a handler only takes note. What was noted is reduced on the CPU from one step to the
    next, beside the training. A second signal acts as it would without this. One process needs none of it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.heard = False
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the signals over, after Lightning took them."""
        if trainer.world_size == 1:
            return
        self._group = dist.new_group(backend="gloo")
        self._begin()
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        """Raise `Stopped` if any process had heard a signal a step ago."""
        if self._before and self._end():
            raise Stopped(1)
        if self._before:
            self._begin()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave nothing unanswered that another process waits for."""
        if self._before:
            self._end()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.heard:
            signal.signal(number, self._before[number])
            signal.raise_signal(number)
        self.heard = True

    def _begin(self) -> None:
        """Start to ask all processes."""
        self._flag = torch.tensor(float(self.heard))
        self._asked = dist.all_reduce(self._flag, dist.ReduceOp.MAX, group=self._group, async_op=True)

    def _end(self) -> bool:
        """Whether any process had heard a signal when asked."""
        self._asked.wait()
        return bool(self._flag)
