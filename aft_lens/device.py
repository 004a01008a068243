"""Where tensors live, by name, and who may work there."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class DeviceWork:
    """Who works on a GPU: any number of threads beside the main one, or the capture of a CUDA graph, which bears none.

    A thread must not wait for another one while it is `beside`.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._beside, self._alone = 0, False

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Work that others may do at the same time; a capture that waits goes first."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._beside += 1
        try:
            yield
        finally:
            with self._changed:
                self._beside -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Work beside which nobody else's is done."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._alone = True
        try:  # from here on whatever interrupts lets the others go on
            with self._changed:
                self._changed.wait_for(lambda: not self._beside)
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()


DEVICE_WORK = DeviceWork()
"""Of this process."""


def usable_device(name: str | torch.device) -> torch.device:
    """The device of that name; ValueError if there is none here."""
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {str(name)!r} cannot be used here ({reason}); give cpu, cuda or cuda:N") from error
