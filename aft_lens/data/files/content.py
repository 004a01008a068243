"""Bytes that a worker hands over, one piece after the other."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from aft_lens.data.files.slots import Lease


class Content:
    """Pieces of bytes in one piece of memory: in a worker's slot as long as they fit, else in memory of their own."""

    def __init__(self, lease: Lease | None = None) -> None:
        self._lease, self._own = lease, None if lease is not None else torch.empty(0, dtype=torch.uint8)
        self.used = 0
        """Bytes that are in it."""

    def __getstate__(self) -> dict[str, Any]:
        """Without memory that is not used."""
        return {**self.__dict__, "_own": None if self._own is None else self.memory.clone()}

    @property
    def memory(self) -> Tensor:
        """All bytes; ValueError once the slot that they were in is given back."""
        return self._whole[: self.used]

    @property
    def _whole(self) -> Tensor:
        if self._own is not None:
            return self._own
        if self._lease is None:
            raise ValueError("these bytes are given back; keep() them before")
        return self._lease.memory

    def put(self, piece: np.ndarray) -> int:
        """Write an array's bytes, in the order of its axes, behind what is there; where they begin."""
        begin, end = self.used, self.used + piece.size
        if end > len(self._whole):
            self._move(2 * end)
        self._whole.numpy()[begin:end].reshape(piece.shape)[...] = piece
        self.used = end
        return begin

    def keep(self) -> None:
        """Keep the bytes beyond the slot, which is given back."""
        if self._own is None:
            self._move(self.used)

    def _move(self, size: int) -> None:
        """Go on in memory of its own."""
        own = torch.empty(size, dtype=torch.uint8)
        own[: self.used] = self.memory
        self._own = own
        self.release()

    def release(self) -> None:
        """Give the slot back, if any."""
        if self._lease is not None:
            self._lease.release()
            self._lease = None
