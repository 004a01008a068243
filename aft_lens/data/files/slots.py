"""Memory that worker processes write batches into again and again: fresh pages would cost as much as decoding does."""

import mmap
import os
import select
import weakref
from collections.abc import Sequence
from itertools import count

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

EACH = 2
"""Slots of a worker: one that it fills, one that waits or is being read."""
PATIENCE = 1000
"""Milliseconds after which a worker that waits looks whether the process before it still lives."""
_NUMBERS = count()


class Slots:
    """Shared memory for what each of some worker processes hands over: `EACH` slots of `size` bytes, touched as used.

    Made before the workers are forked. A worker takes one of its own slots, and waits while all are in use; the `Lease`
    goes with the batch to the process that made the slots, and gives its slot back there, at the latest when it is
    forgotten.
    """

    def __init__(self, workers: int, size: int) -> None:
        self.number, self._maker = next(_NUMBERS), os.getpid()
        self.memory = [
            torch.frombuffer(mmap.mmap(-1, EACH * size), dtype=torch.uint8).view(EACH, size) for _ in range(workers)
        ]
        self._back = [os.pipe() for _ in range(workers)]
        self._free = list(range(EACH))
        self._given: weakref.WeakSet[Lease] = weakref.WeakSet()
        _HERE[self.number] = self
        closing = weakref.finalize(self, _close, [end for pipe in self._back for end in pipe])
        closing.atexit = False  # leases that are left may still come back

    def take(self) -> "Lease | None":
        """A slot of the worker process that this is; None in another process."""
        worker = get_worker_info()
        if worker is None:
            return None
        back = self._back[worker.id][0]
        waiting = select.poll()
        waiting.register(back, select.POLLIN)
        while not self._free:
            if waiting.poll(PATIENCE):
                self._free += os.read(back, EACH)
            elif os.getppid() != self._maker:
                raise SystemExit("the process that batches were for has ended")
        return Lease(self, worker.id, self._free.pop(0))

    def give_back(self, worker: int, slot: int) -> None:
        """Let a worker use a slot of its own again."""
        if os.getpid() == self._maker:
            os.write(self._back[worker][1], bytes([slot]))
        else:
            self._free.append(slot)

    def received(self, worker: int, slot: int) -> "Lease":
        """The lease of a batch that came from a worker."""
        lease = Lease(self, worker, slot)
        self._given.add(lease)
        return lease

    def recall(self) -> None:
        """Take back whatever came from workers: no batch of a pass before is read any more."""
        for lease in list(self._given):
            lease.release()


class Lease:
    """A worker's slot for as long as what is in it is needed."""

    def __init__(self, slots: Slots, worker: int, slot: int) -> None:
        self.slots, self.worker, self.slot = slots, worker, slot
        self._held = True

    @property
    def memory(self) -> Tensor:
        """The slot, bytes."""
        return self.slots.memory[self.worker][self.slot]

    def release(self) -> None:
        """Give the slot back, once."""
        if self._held:
            self._held = False
            self.slots.give_back(self.worker, self.slot)

    def __del__(self) -> None:
        self.release()

    def __reduce__(self) -> tuple[object, tuple[int, int, int]]:
        """Hand it over: this process has it no more."""
        self._held = False
        return _received, (self.slots.number, self.worker, self.slot)


_HERE: "weakref.WeakValueDictionary[int, Slots]" = weakref.WeakValueDictionary()
"""The slots of this process, by number."""


def _received(number: int, worker: int, slot: int) -> Lease:
    """A lease in the process that made the slots; LookupError where they are gone."""
    return _HERE[number].received(worker, slot)


def _close(ends: Sequence[int]) -> None:
    """Close the ends of pipes."""
    for end in ends:
        os.close(end)
