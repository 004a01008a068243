"""Patches, strips and tile shapes of the kernels for large grids."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aft_lens.ops.kernels.launch import Geometry

STRIP = 8
"""Columns of a strip: 16 bytes of bfloat16, the widest load a thread has."""
LARGEST_SUM = 8192
"""Most rows, and strips times rows of a halo, of a grid: what a program holds to sum what lies outside patches."""


@dataclass(frozen=True)
class BandTiles:
    """Block shape and launch options of one kernel: rows and depth of its products, and into how many it splits."""

    rows: int
    depth: int
    splits: int = 1
    warps: int = 4
    stages: int = 3
    registers: int | None = None

    @property
    def options(self) -> dict[str, int | None]:
        """What Triton takes beside the kernel's own arguments."""
        return {"num_warps": self.warps, "num_stages": self.stages, "maxnreg": self.registers}


@dataclass(frozen=True)
class Band:
    """A grid cut into patches of targets, each with the halo of sources that its windows reach.

    Images are stored in strips, `strips rows 8`, the last one padded with zeros. A halo is `radius` rows and as many
    whole strips as it needs beyond each side of its patch. What a patch's windows weigh is the same for every patch.
    """

    geometry: Geometry
    patch: tuple[int, int]

    @classmethod
    def of(cls, grid: Sequence[int], w: Tensor, dtype: torch.dtype) -> "Band":
        """From the grid's sides, a bias `h *window` and the values' type."""
        geometry = Geometry.of(grid, w)
        return cls(geometry, choose_patch(geometry, dtype))

    @property
    def strips(self) -> int:
        """Strips of the grid."""
        return -(-self.geometry.grid[1] // STRIP)

    @property
    def positions(self) -> int:
        """Positions of the grid with its padding."""
        return self.strips * self.geometry.grid[0] * STRIP

    @property
    def patches(self) -> tuple[int, int]:
        """Patches down and across."""
        rows, columns = self.geometry.grid
        return -(-rows // self.patch[0]), -(-columns // self.patch[1])

    @property
    def targets(self) -> int:
        """Positions of a patch."""
        return math.prod(self.patch)

    @property
    def margin(self) -> int:
        """Strips of the halo beyond each side of its patch."""
        return -(-(self.geometry.window[1] // 2) // STRIP)

    @property
    def halo(self) -> tuple[int, int]:
        """Rows and strips of a halo."""
        high = self.geometry.window[0]
        return self.patch[0] + high - 1, self.patch[1] // STRIP + 2 * self.margin

    def depth(self, block: int) -> int:
        """Positions of a halo rounded up to a multiple of `block`."""
        return -(-math.prod(self.halo) * STRIP // block) * block

    @property
    def shape(self) -> tuple[int, ...]:
        """What the kernels know a band by: grid, strips, patch, halo, margin, half the window's height."""
        return (*self.geometry.grid, self.strips, *self.patch, *self.halo, self.margin, self.geometry.window[0] // 2)

    @property
    def outside(self) -> tuple[int, int, int]:
        """Tile of the sums outside patches: rows of the grid, strips, rows of a halo."""
        return power_of_two(self.geometry.grid[0]), power_of_two(self.strips), power_of_two(self.halo[0])

    def outside_rows(self) -> int:
        """Images a program of the sums outside patches; 0 where not even one fits."""
        high, wide, near = self.outside
        return min(16, LARGEST_SUM // max(high, wide * near))

    def pack_block(self) -> int:
        """Positions a program of the elementwise passes."""
        return min(power_of_two(self.positions), 1024)

    def forward_tiles(self, dtype: torch.dtype) -> BandTiles:
        """Tiles of numerators and denominators."""
        if dtype == torch.float32:
            return BandTiles(32, 32, stages=1)
        return BandTiles(128, 64, warps=8)

    def source_tiles(self, c: int, dtype: torch.dtype) -> BandTiles:
        """Tiles of the gradients of key and value."""
        if dtype == torch.float32:
            return BandTiles(32, 32, stages=1)
        return BandTiles(128, 64, splits=min(4, c + 1), warps=8, registers=128)

    def pair_tiles(self, b: int, h: int, c: int, dtype: torch.dtype) -> BandTiles:
        """Tiles of the gradient of the weights."""
        rows, depth, stages = (32, 32, 1) if dtype == torch.float32 else (64, 128, 3)
        blocks = self.depth(depth) // depth
        most = -(-(c + 1) * b * math.prod(self.patches) // rows)
        return BandTiles(rows, depth, splits=max(1, min(most, 640 // (h * blocks))), stages=stages)


def refusal(grid: Sequence[int], window: Sequence[int]) -> str | None:
    """Why the kernels for large grids cannot take this one, to follow "the kernels"; None if they can."""
    geometry = Geometry.of(grid, torch.empty(0, *window))
    if Band(geometry, choose_patch(geometry, torch.float32)).outside_rows() == 0:
        return f"take no grid as long as {tuple(grid)} with windows {tuple(window)}"
    return None


def choose_patch(geometry: Geometry, dtype: torch.dtype) -> tuple[int, int]:
    """Rows and columns of a patch: products of 64 targets."""
    return (1, 64) if geometry.grid[0] == 1 else (8, 8)


def power_of_two(size: int) -> int:
    """The next power of two."""
    return 1 << max(0, size - 1).bit_length()
