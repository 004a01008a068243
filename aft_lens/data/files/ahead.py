"""Batches made on a GPU before they are asked for, by a thread, on a stream of its own."""

import queue
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from aft_lens.device import DEVICE_WORK

WAITING = 2
"""Finished batches that wait on the device."""
PATIENCE = 0.1
"""Seconds after which a thread that waits looks whether anybody still waits for it."""


class Ahead(Iterator[tuple[Tensor, Tensor]]):
    """The batches of an iterator, whose work is done by a thread on a stream; they come in its order.

    What goes wrong there is raised where the batch is asked for. `close` ends the thread.
    """

    def __init__(self, batches: Iterator[tuple[Tensor, Tensor]], device: torch.device) -> None:
        self.device = device
        self._waiting: queue.Queue[Any] = queue.Queue(WAITING)
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        if device.type == "cuda":
            arguments = (batches, device, self._waiting, self._closed)
            self._thread = threading.Thread(target=_work, args=arguments, name="images", daemon=True)
            self._thread.start()

    def __next__(self) -> tuple[Tensor, Tensor]:
        if self._closed.is_set():
            raise StopIteration
        made = self._waiting.get()
        if made is None or isinstance(made, BaseException):
            self.close()
            raise made or StopIteration
        images, labels, done = made
        stream = torch.cuda.current_stream(self.device)
        stream.wait_event(done)
        images.record_stream(stream)
        labels.record_stream(stream)
        return images, labels

    def close(self) -> None:
        """End the thread; nothing comes after that."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()

    def __del__(self) -> None:
        self._closed.set()


def _work(
    batches: Iterator[tuple[Tensor, Tensor]],
    device: torch.device,
    waiting: "queue.Queue[Any]",
    closed: threading.Event,
) -> None:
    """The thread: it knows nothing of who waits, so that who is forgotten is closed."""
    try:
        torch.cuda.set_device(device)
        stream = torch.cuda.Stream(device, priority=-1)
        with torch.cuda.stream(stream):
            while not closed.is_set():
                with DEVICE_WORK:
                    made = next(batches, None)
                    if made is not None:
                        made = (*(tensor.to(device) for tensor in made), stream.record_event())
                _put(made, waiting, closed)
                if made is None:
                    return
    except BaseException as error:  # raised again where the batch is asked for
        _put(error, waiting, closed)


def _put(made: Any, waiting: "queue.Queue[Any]", closed: threading.Event) -> None:
    """Hand a batch on, unless nobody waits any more."""
    while not closed.is_set():
        try:
            return waiting.put(made, timeout=PATIENCE)
        except queue.Full:
            continue
