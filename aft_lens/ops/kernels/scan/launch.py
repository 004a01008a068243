"""Tiles, runs and layouts of the scan kernels."""

from dataclasses import dataclass

import torch
from torch import Tensor

from aft_lens.ops.kernels.scan.state import prefix_kernel, run_kernel, suffix_kernel

PROGRAMS = 4224
"""Warps that a scan should have at least: 32 for each of 132 multiprocessors. Time is cut into runs to get there."""
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
        wanted = -(-PROGRAMS // (warps * b * -(-d // block)))
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


def like(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Unwritten and contiguous."""
    return torch.empty(value.shape, dtype=dtype, device=value.device)


def sums(value: Tensor, count: int, parts: int) -> list[Tensor]:
    """Unwritten float32 buffers `b count d`."""
    b, _, d = value.shape
    return [torch.empty(b, count, d, dtype=torch.float32, device=value.device) for _ in range(parts)]


def prefixes(key: Tensor, value: Tensor, count: int, length: int, peak: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(log of the denominator, mean) `b run d` of each of `count` runs of `length` sources and all before it.

    The largest key of each run goes to `peak`, infinity where something in it must not be multiplied.
    """
    b, t, d = value.shape
    log, mean = sums(value, count, 2)
    block = block_of(d)
    run_kernel[(b * count * -(-d // block),)](
        key, value, log, mean, log if peak is None else peak, t, d, *steps(key), *steps(value), count, length,
        block, peak is not None, num_warps=1,
    )  # fmt: skip
    if count > 1:
        prefix_kernel[(b * -(-d // block),)](log, mean, count, d, block, num_warps=1)
    return log, mean


def suffixes(log: Tensor, one: Tensor, two: Tensor) -> None:
    """`one` and `two`, `b run d`, of each run and all after it relative to its log, in place."""
    b, count, d = log.shape
    block = block_of(d)
    suffix_kernel[(b * -(-d // block),)](log, one, two, count, d, block, num_warps=1)
