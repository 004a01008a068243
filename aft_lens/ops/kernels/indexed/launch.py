"""Tiles of the indexed kernels: how many grid rows a program holds, and on how many threads."""

from dataclasses import dataclass, replace

LARGEST_INDEXED = 16384
"""Most positions of a grid: a program holds whole rows of it in registers."""
MOST_KEPT = 8
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


FORWARD = {
    "single": RowTiles(64, 2, 4, 1, registers=96),
    "many": RowTiles(64, 2, 1, 1, splits=2, registers=128),
    "kept": RowTiles(128, 1, 4, 1, registers=128),
}
BACKWARD = {
    "single": RowTiles(128, 1, 4, 1, registers=80),
    "many": RowTiles(64, 2, 1, 1, registers=168),
    "kept": RowTiles(128, 1, 4, 1, registers=168),
}
"""For grids of up to 256 positions: heads of one channel, of many, and heads that keep more than two offsets."""


def padded(positions: int) -> int:
    """Positions of a tile."""
    return 1 << (positions - 1).bit_length()


def row_tiles(table: dict[str, RowTiles], b: int, c: int, t: int, keep: int) -> RowTiles:
    """Tiles for a shape; a row longer than 256 positions goes alone, on a warp for each 512 positions of it."""
    tiles = table["kept" if keep > 2 else "single" if c == 1 else "many"]
    if padded(t) > 256:
        tiles = replace(tiles, rows=1, steps=1, warps=padded(t) // 512, registers=None)
    return replace(
        tiles,
        lanes=min(tiles.lanes, padded(t)),
        steps=min(tiles.steps, -(-b // tiles.rows)),
        splits=tiles.splits if c % tiles.splits == 0 else 1,
    )
