"""Layouts, tile shapes and data types of the kernels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

LARGEST_DENSE = 256
"""Most positions of a grid that the dense kernels take: e^(w - a) of a head must fit on chip."""

FEW_HEADS = 16
"""Heads up to which a program of the gradients takes fewer batch rows, or too few programs would fill a GPU."""


def dot_dtype(dtype: torch.dtype) -> torch.dtype:
    """Operand type of the matrix units: bfloat16 for 16-bit inputs (its range holds e^-57), else float32."""
    return torch.bfloat16 if dtype in (torch.bfloat16, torch.float16) else torch.float32


def empty_channel_leading(value: Tensor) -> Tensor:
    """An unwritten tensor of shape `b h c t` whose memory runs `h c b t`."""
    b, h, c, t = value.shape
    return value.new_empty(h, c, b, t).permute(2, 0, 1, 3)


def channel_leading(tensor: Tensor) -> Tensor:
    """The tensor itself if its last dimension is contiguous, else a copy laid out `h c b t`."""
    if tensor.stride(-1) == 1:
        return tensor
    return (
        torch.empty_like(tensor.permute(1, 2, 0, 3), memory_format=torch.contiguous_format)
        .copy_(tensor.permute(1, 2, 0, 3))
        .permute(2, 0, 1, 3)
    )


def last_contiguous(tensor: Tensor) -> Tensor:
    """The tensor itself if its last dimension is contiguous, else a contiguous copy."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def strides(tensor: Tensor, count: int) -> tuple[int, ...]:
    """The first `count` strides."""
    return tuple(tensor.stride()[:count])


def batch_unit(*tensors: Tensor) -> int:
    """Largest power of two up to 8 that divides every step along the batch: it makes loads that wide."""
    return math.gcd(8, *(tensor.stride(0) for tensor in tensors))


def batch_strides(tensor: Tensor, count: int, unit: int) -> tuple[int, ...]:
    """The first `count` strides, that along the batch in steps of `unit`."""
    first, *rest = strides(tensor, count)
    return (first // unit, *rest)


@dataclass(frozen=True)
class Tiles:
    """Block shape and launch options of one kernel."""

    block_b: int
    block_t: int
    b_steps: int = 1
    warps: int = 8
    stages: int = 2

    @property
    def options(self) -> dict[str, int]:
        """Launch options."""
        return {"num_warps": self.warps, "num_stages": self.stages}


EXACT_PROGRAMS = 16
"""Programs a head of the band's exact kernels: few, as nearly all of them end at once."""

EXACT_WAVE = 512
"""Programs of the dense exact kernels, all heads together: about as many as a GPU runs at once."""


@dataclass(frozen=True)
class Geometry:
    """A grid and window as the kernels see them, 1-D ones with a leading side of 1."""

    grid: tuple[int, int]
    window: tuple[int, int]

    @classmethod
    def of(cls, grid: Sequence[int], w: Tensor) -> "Geometry":
        """From the grid's sides and a bias `h *window`."""
        rows, columns = (1, *grid)[-2:]
        high, wide = (1, *w.shape[1:])[-2:]
        return cls((rows, columns), (high, wide))

    @property
    def columns(self) -> int:
        """Positions in a row."""
        return self.grid[1]

    @property
    def block(self) -> int:
        """Positions of the grid rounded up to a tile."""
        return max(16, 1 << (math.prod(self.grid) - 1).bit_length())

    @property
    def padded(self) -> int:
        """Row length of the expanded weights: a multiple of 16, so that rows start on 16 bytes."""
        return -(-math.prod(self.grid) // 16) * 16

    @property
    def window_block(self) -> int:
        """Window size rounded up to a power of two."""
        return 1 << max(0, (math.prod(self.window) - 1).bit_length())

    @staticmethod
    def precision(dtype: torch.dtype) -> str:
        """Precision of float32 products."""
        return "ieee" if dtype == torch.float32 else "tf32"

    def forward_tiles(self, b: int, h: int, c: int, dtype: torch.dtype) -> Tiles:
        """Tiles of the fused forward, as measured on an H100."""
        if dtype == torch.float32:
            return Tiles(16, min(self.block, 32), b_steps=2 if c == 1 else 1, warps=4, stages=1)
        if c <= 2:
            return Tiles(32, min(self.block, 256), b_steps=8, stages=1)
        return Tiles(32, min(self.block, 128), warps=4, stages=3)

    def backward_tiles(self, b: int, h: int, c: int, dtype: torch.dtype) -> Tiles:
        """Tiles of the gradients of key and value."""
        if dtype == torch.float32:
            return Tiles(16, min(self.block, 32), warps=4, stages=1)
        if c <= 2:
            return Tiles(64, min(self.block, 64), b_steps=4, warps=4, stages=1)
        return Tiles(32, min(self.block, 128), b_steps=1 if h <= FEW_HEADS else 2, warps=4, stages=3)

    def gate_rows(self) -> int:
        """Batch rows a program of the elementwise backward pass."""
        return max(1, 2048 // self.block)

    def pair_tiles(self, b: int, h: int, c: int, dtype: torch.dtype) -> Tiles:
        """Tiles of the gradient of the expanded weights."""
        if dtype == torch.float32:
            return Tiles(16, min(self.block, 32), b_steps=max(1, b // 16), warps=4, stages=1)
        if c <= 2:
            return Tiles(64, min(self.block, 128), b_steps=4, warps=4)
        return Tiles(32, min(self.block, 128), b_steps=2 if h <= FEW_HEADS else 4, warps=4, stages=3)
