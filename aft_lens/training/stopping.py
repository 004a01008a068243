"""Signals that end training in several processes at the same step."""

import signal
import threading
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
    next, beside the training. A second Ctrl-C acts at once. One process needs none of it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.heard = False
        self._asked: dist.Work | None = None
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the signals over, after Lightning took them; one that is ignored stays so."""
        if trainer.world_size == 1:
            return
        if threading.current_thread() is threading.main_thread():
            numbers = [n for n in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(n) != signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._note) for number in numbers}
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
        self._group = dist.new_group(backend="gloo")
        self._ask()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        """Raise `Stopped` if any process had heard a signal a step ago."""
        if self._asked is not None:
            if self._answer(self._asked):
                raise Stopped(1)
            self._ask()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave nothing unanswered that another process waits for."""
        if self._asked is not None:
            self._answer(self._asked)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Give the signals back: what ends now may be ended."""
        self._give_back()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give the signals back."""
        self._give_back()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.heard and number == signal.SIGINT:
            self._give_back()
            signal.raise_signal(number)
        self.heard = True  # SIGTERM again changes nothing: a process is often told by itself and in its group

    def _give_back(self) -> None:
        """Ctrl-C does what it did before; SIGTERM ends the process, as Lightning's handler could wait for ever."""
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else handler)
        self._before = {}

    def _ask(self) -> None:
        """Start to ask all processes whether they heard a signal."""
        self._flag = torch.tensor(float(self.heard))
        self._asked = dist.all_reduce(self._flag, dist.ReduceOp.MAX, group=self._group, async_op=True)

    def _answer(self, asked: dist.Work) -> bool:
        """Whether any process had heard one when asked."""
        self._asked = None
        asked.wait()
        return bool(self._flag)
