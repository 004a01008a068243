"""Work of a pipeline's stage, done by a thread before it is asked for, on a GPU on a stream of its own."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aft_lens.device import DEVICE_WORK

NAME = "images"
"""Of every stage's thread."""
PATIENCE = 0.1
"""Seconds after which who waits looks whether it is still worth while."""

Made = tuple[Any, ...]
Work = Callable[[Any], Made]


@dataclass
class Spent:
    """What a stage's thread has spent its time on, in seconds."""

    items: int = 0
    """That it has made."""
    waited: float = 0.0
    """For what it works on."""
    worked: float = 0.0
    """On the host, what it waits for on the device included."""


class Ahead(Iterator[Made]):
    """What `work` makes of an iterator's items: tuples in its order, up to `waiting` of them made before they are asked
    for.

    The iterator and the work are a thread's alone; the iterator may be another `Ahead`, whose work is then done at the
    same time. On a CUDA device the thread works on a stream of its own: who asks has its current stream wait for what
    it gets, and memory of tensors in it is not used again before that stream is through with them. What goes wrong is
    raised where it is asked for. `close` ends the thread, as forgetting does; called by a stage's own thread, where the
    garbage collector may run, it waits for none.
    """

    def __init__(self, items: Iterator[Any], work: Work, device: torch.device, waiting: int = 2) -> None:
        self.device, self._items = device, items
        self._waiting: queue.Queue[Any] = queue.Queue(waiting)
        self._closed = threading.Event()
        self.spent = Spent()
        # The thread knows nothing of who waits, so that who is forgotten is closed.
        arguments = (items, work, device, self._waiting, self._closed, self.spent)
        self._thread = threading.Thread(target=_run, args=arguments, name=NAME, daemon=True)
        self._thread.start()

    def __next__(self) -> Made:
        made = self._next()
        if made is None and self._closed.is_set():
            raise StopIteration
        if made is None or isinstance(made, BaseException):
            self.close()
            raise made or StopIteration
        items, done = made
        if done is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(done)
            for item in items:
                if isinstance(item, Tensor) and item.is_cuda:
                    item.record_stream(stream)
        return items

    def close(self) -> None:
        """End the thread, and that of the iterator; nothing comes after that."""
        self._closed.set()
        if isinstance(self._items, Ahead):
            self._items.close()
        if threading.current_thread().name != NAME:
            self._thread.join()

    def __del__(self) -> None:
        self._closed.set()

    def _next(self) -> Any:
        """What the thread has handed on; None at the end, and once this is closed."""
        while not self._closed.is_set():
            try:
                return self._waiting.get(timeout=PATIENCE)
            except queue.Empty:
                continue
        return None


def _run(
    items: Iterator[Any],
    work: Work,
    device: torch.device,
    waiting: "queue.Queue[Any]",
    closed: threading.Event,
    spent: Spent,
) -> None:
    """The thread."""
    try:
        if device.type == "cuda":
            torch.cuda.set_device(device)  # what a stream's context gives back to at its end
        stream = torch.cuda.Stream(device, priority=-1) if device.type == "cuda" else None
        with nullcontext() if stream is None else torch.cuda.stream(stream):
            asked = time.perf_counter()
            for item in items:
                got = time.perf_counter()
                with DEVICE_WORK.beside():
                    made = work(item), None if stream is None else stream.record_event()
                spent.items += 1
                spent.waited += got - asked
                spent.worked += time.perf_counter() - got
                _put(made, waiting, closed)
                if closed.is_set():
                    return
                asked = time.perf_counter()
        _put(None, waiting, closed)
    except BaseException as error:  # raised again where the item is asked for
        _put(error, waiting, closed)


def _put(made: Any, waiting: "queue.Queue[Any]", closed: threading.Event) -> None:
    """Hand something on, unless nobody waits any more."""
    while not closed.is_set():
        try:
            return waiting.put(made, timeout=PATIENCE)
        except queue.Full:
            continue
