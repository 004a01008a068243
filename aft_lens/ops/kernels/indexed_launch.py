"""Tiles of the indexed kernels: how many grid rows a program holds, and on how many threads."""

from dataclasses import dataclass, replace

LARGEST_INDEXED = 16384
"""Most positions of a grid: a program holds whole rows of it in registers."""
MOST_KEPT = 16
"""Most offsets a head: each costs a tile of registers."""
EXACT_PROGRAMS = 16
"""Programs a head of the exact kernel: few, as nearly all of them end at once."""


@dataclass(frozen=True)
class RowTiles:
    """Launch options of one kernel."""

    lanes: int
    """Positions side by side; the rest of a row runs through a thread's registers (a power of two)."""
    rows: int
    """Batch rows a program holds at once."""
    steps: int
    """Groups of rows a program takes one after the other, sharing what depends on positions alone."""
    warps: int
    splits: int = 1
    """Programs the channels of a head are spread over (forward)."""
    registers: int | None = None
    """Most registers a thread, None for the compiler's choice."""

    def options(self) -> dict[str, int | None]:
        """Triton's launch options."""
        return {"num_warps": self.warps, "num_stages": 1, "maxnreg": self.registers}


FORWARD = {"single": RowTiles(32, 4, 4, 1), "many": RowTiles(64, 2, 1, 1, splits=2)}
BACKWARD = {"single": RowTiles(64, 2, 4, 1), "many": RowTiles(64, 2, 1, 1)}
"""By whether a head has one channel or many, for grids of up to 256 positions."""


def padded(positions: int) -> int:
    """Positions of a tile."""
    return 1 << (positions - 1).bit_length()


def row_tiles(table: dict[str, RowTiles], b: int, c: int, t: int) -> RowTiles:
    """Tiles for a shape; a row longer than 256 positions goes alone, on a warp for each 512 positions of it."""
    tiles = table["single" if c == 1 else "many"]
    lanes = min(tiles.lanes, padded(t))
    rows, warps = tiles.rows, tiles.warps
    if padded(t) > 256:
        rows, warps = 1, max(tiles.warps, padded(t) // 512)
    splits = tiles.splits if c % tiles.splits == 0 else 1
    return replace(tiles, lanes=lanes, rows=rows, warps=warps, steps=min(tiles.steps, -(-b // rows)), splits=splits)
