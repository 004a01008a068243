"""Tiles, runs and layouts of the scan kernels."""

from dataclasses import dataclass

import torch
from torch import Tensor

PROGRAMS = 1056
"""Programs a scan should have at least: eight for each multiprocessor of an H100. Long runs are split to get there."""
WIDEST = 64
"""Channels a program: one warp, two a lane, so that each lane scans its own rows without shuffles."""


@dataclass(frozen=True)
class Runs:
    """How a scan is cut: `count` runs of `steps` tiles of `rows` positions, `block` channels at a time."""

    rows: int
    block: int
    tiles: int
    steps: int
    count: int
    warps: int = 1

    @classmethod
    def of(cls, value: Tensor, rows: int, *, warps: int = 1) -> "Runs":
        """As few runs as give every multiprocessor enough programs; value is `b t d`."""
        b, t, d = value.shape
        block, tiles = block_of(d), -(-t // rows)
        wanted = -(-PROGRAMS // (b * -(-d // block)))
        steps = -(-tiles // min(wanted, tiles))
        return cls(rows, block, tiles, steps, -(-tiles // steps), warps)

    def programs(self, value: Tensor, each: int | None = None) -> tuple[int]:
        """Grid of `each` programs (a run each, unless given) for every batch row and block of channels."""
        return (value.shape[0] * -(-value.shape[2] // self.block) * (self.count if each is None else each),)


def block_of(dim: int, smallest: int = 1, widest: int = WIDEST) -> int:
    """Channels a program: a power of two."""
    return min(widest, max(smallest, 1 << (dim - 1).bit_length()))


def channels_last(tensor: Tensor) -> Tensor:
    """The tensor itself if its channels are contiguous, else a contiguous copy."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def steps(tensor: Tensor) -> tuple[int, int]:
    """Strides along the batch and time."""
    return tensor.stride(0), tensor.stride(1)


def sums(value: Tensor, count: int, parts: int) -> list[Tensor]:
    """Unwritten float32 buffers `b count d`."""
    b, _, d = value.shape
    return [torch.empty(b, count, d, dtype=torch.float32, device=value.device) for _ in range(parts)]
