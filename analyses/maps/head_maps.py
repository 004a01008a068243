"""Maps of a model by layer and head with their unit: what every mosaic is drawn from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from analyses.maps.frame import framed

MOST_HEADS = 16
"""Heads drawn of each layer at once, as in the paper's figures."""


@dataclass(frozen=True)
class HeadMaps:
    """Maps of one model on one frame, `layer head y x`, in one unit."""

    values: Float[np.ndarray, "layer head y x"]
    """NaN where the model has no value."""
    unit: str
    """What a value is, for the colour bar."""
    by_offset: bool = True
    """True if y and x are offsets (Δy, Δx) around the middle, False if they are positions of the grid."""
    label: str = ""
    """The model's name."""
    words: str = ""
    """What is to be said above the maps, e.g. whether training made them."""
    signed: bool = True
    """False if no value is below zero."""
    targets: Sequence[tuple[int, int]] | None = None
    """The position (row, column) that each column's maps are drawn for, where the columns are targets."""
    distance: Float[np.ndarray, "layer head"] | None = None
    """Mean distance from the target in patches, where the analysis gives it."""
    idle: Bool[np.ndarray, "layer head"] | None = None
    """Heads that do nothing, where the analysis says so."""
    chosen: Sequence[int] | None = None
    """Numbers of the heads in the model, where they are some of its heads alone."""

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

    @property
    def numbers(self) -> Sequence[int]:
        """Number of each head in the model."""
        return range(self.heads) if self.chosen is None else self.chosen

    def select_heads(self, chosen: Sequence[int]) -> "HeadMaps":
        """The heads of these numbers alone, which they keep."""
        place = [list(self.numbers).index(number) for number in chosen]
        targets = None if self.targets is None else [self.targets[i] for i in place]
        distance = None if self.distance is None else self.distance[:, place]
        idle = None if self.idle is None else self.idle[:, place]
        return replace(
            self, values=self.values[:, place], targets=targets, distance=distance, idle=idle, chosen=[*chosen]
        )  # fmt: skip

    def head_window(self, first: int, count: int = MOST_HEADS) -> "HeadMaps":
        """`count` heads from `first` on, or as many as there are."""
        return self.select_heads(self.numbers[first : first + count])

    def spread(self, most: int = MOST_HEADS) -> "HeadMaps":
        """At most so many heads, evenly spread over all."""
        if self.heads <= most:
            return self
        place = np.linspace(0, self.heads - 1, most).round().astype(int)
        return self.select_heads([self.numbers[i] for i in place])

    def framed(self, rows: int, columns: int) -> "HeadMaps":
        """Crop or fill with NaN around the target to (rows, columns), to share a frame; ValueError unless odd."""
        return replace(self, values=framed(self.values, (rows, columns), np.nan))

    def bound(self) -> float:
        """Symmetric colour bound: the median over maps of the largest |value|, maps of zeros left out; 0 if all are.

        exp(w) − 1 may be a thousand times larger in one head than in the next: a bound at the largest value would
        turn all the others white. Larger values have the full colour, and are read by hovering.
        """
        peaks = np.where(np.isfinite(self.values), np.abs(self.values), 0.0).max((2, 3))
        return float(np.median(peaks[peaks > 0])) if (peaks > 0).any() else 0.0


def shared_bound(*maps: HeadMaps) -> float:
    """One symmetric colour bound for several models; 1 if all their values are zero."""
    return max((one.bound() for one in maps), default=0.0) or 1.0


def shared_frame(*maps: HeadMaps) -> tuple[int, int]:
    """The smallest frame (rows, columns) that holds every model's."""
    return max(one.frame[0] for one in maps), max(one.frame[1] for one in maps)


def nearest_frame(*maps: HeadMaps) -> tuple[int, int]:
    """The largest frame (rows, columns) that every model has values on."""
    return min(one.frame[0] for one in maps), min(one.frame[1] for one in maps)
