"""A stack of maps by layer and head with its unit: what every mosaic of the app is drawn from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class MapStack:
    """Maps of one model on one frame, `layer head y x`, in one unit."""

    values: np.ndarray
    """`layer head y x`; NaN where the model has no value."""
    unit: str
    """What a value is, for the colour bar."""
    by_offset: bool = True
    """True if y and x are offsets (Δy, Δx) around the middle, False if they are positions of the grid."""
    label: str = ""
    """The model's name."""
    signed: bool = True
    """False if no value is below zero."""
    targets: Sequence[tuple[int, int]] | None = None
    """The position (row, column) that each column's maps are drawn for, where the columns are targets."""
    distance: np.ndarray | None = None
    """Mean distance from the target in patches, `layer head`, where the analysis gives it."""

    def __post_init__(self) -> None:
        """Raise ValueError unless the values are `layer head y x`."""
        if self.values.ndim != 4:
            raise ValueError(f"values must be 'layer head y x', got shape {self.values.shape}")

    @property
    def column(self) -> str:
        """What the columns are: heads, or the targets that AFT-full's maps are drawn for."""
        return "head" if self.targets is None else "target"

    @property
    def layers(self) -> int:
        """Layers of the model."""
        return self.values.shape[0]

    @property
    def heads(self) -> int:
        """Heads a layer."""
        return self.values.shape[1]

    @property
    def frame(self) -> tuple[int, int]:
        """(rows, columns) of one map."""
        return self.values.shape[2], self.values.shape[3]

    def coordinates(self, row: int, column: int) -> tuple[int, int]:
        """(Δy, Δx), or (y, x), of a cell."""
        if not self.by_offset:
            return row, column
        return row - self.frame[0] // 2, column - self.frame[1] // 2

    def cell(self, y: int, x: int) -> tuple[int, int] | None:
        """Row and column of an offset or position; None if it lies outside the frame."""
        rows, columns = self.frame
        row, column = (y + rows // 2, x + columns // 2) if self.by_offset else (y, x)
        return (row, column) if 0 <= row < rows and 0 <= column < columns else None

    def select_heads(self, first: int, count: int) -> "MapStack":
        """The same stack with `count` heads from `first` on."""
        targets = None if self.targets is None else self.targets[first : first + count]
        return replace(self, values=self.values[:, first : first + count], targets=targets)

    def framed(self, rows: int, columns: int) -> "MapStack":
        """Crop or pad with NaN around the middle to (rows, columns), both odd if by offset, to share a frame."""
        out = np.full((*self.values.shape[:2], rows, columns), np.nan)
        source, target = [], []
        for have, want in zip(self.frame, (rows, columns), strict=True):
            size = min(have, want)
            source.append(slice((have - size) // 2, (have - size) // 2 + size))
            target.append(slice((want - size) // 2, (want - size) // 2 + size))
        out[:, :, target[0], target[1]] = self.values[:, :, source[0], source[1]]
        return replace(self, values=out)

    def bound(self) -> float:
        """Symmetric colour bound: the median over maps of the largest |value|, maps of zeros left out; 0 if all are.

        exp(w) − 1 may be a thousand times larger in one head than in the next: a bound at the largest value would
        turn all the others white. Larger values have the full colour, and are read by hovering.
        """
        peaks = np.where(np.isfinite(self.values), np.abs(self.values), 0.0).max((2, 3))
        return float(np.median(peaks[peaks > 0])) if (peaks > 0).any() else 0.0


def shared_bound(*stacks: MapStack) -> float:
    """One symmetric colour bound for several stacks; 1 if all their values are zero."""
    return max((stack.bound() for stack in stacks), default=0.0) or 1.0


def shared_frame(*stacks: MapStack) -> tuple[int, int]:
    """The smallest frame (rows, columns) that holds every stack's."""
    return max(stack.frame[0] for stack in stacks), max(stack.frame[1] for stack in stacks)


def nearest_frame(*stacks: MapStack) -> tuple[int, int]:
    """The largest frame (rows, columns) that every stack has values on."""
    return min(stack.frame[0] for stack in stacks), min(stack.frame[1] for stack in stacks)
