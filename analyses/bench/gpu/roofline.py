"""Bytes that an AFT-conv must move, operations of its products, and the rates that a measured time makes of them.

    forward:  bytes = 2 B T (3 d + h)            operations = 2 B (d + h) P
    trained:  bytes = 2 B T (8 d + 3 h)          operations = 6 B (d + h) P

with two bytes a value (bfloat16), d channels and h heads. P is the number of (target, source) pairs of one channel's
product: see `product_pairs`.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from aft_lens.ops.inspection import kernel_pairs
from analyses.bench.gpu.operators import DIM
from analyses.bench.gpu.record import GPURecord, OperatorRow

COUNTED = ("aft_conv", "indexed")
"""Operators whose bytes and operations are counted here."""
VALUE_BYTES = 2
PUBLISHED = {"NVIDIA H100 80GB HBM3": (3.35e12, 989e12), "NVIDIA H200": (4.8e12, 989e12)}
"""Bytes and dense bfloat16 operations a second by GPU.

From the data sheets "NVIDIA H100 Tensor Core GPU" (SXM) and "NVIDIA H200 Tensor Core GPU" (SXM), which print 1,979
TFLOP/s with sparsity, twice the dense rate.
"""


@dataclass(frozen=True)
class Roofline:
    """One measured pass against what bounds it."""

    moved: int
    """Bytes that must move."""
    operations: int
    """Operations of the matrix units, a multiply-add being two."""
    microseconds: float
    copy_rate: float | None
    """Bytes a second, read and written, of the copy measured at this shape; None where there is none."""
    matrix_peak: float | None
    """Published operations a second; None for a GPU not in PUBLISHED."""

    @property
    def rate(self) -> float:
        """Bytes a second of the measured time."""
        return self.moved / self.microseconds * 1e6

    @property
    def operation_rate(self) -> float:
        """Operations a second of the measured time."""
        return self.operations / self.microseconds * 1e6

    @property
    def by_bytes(self) -> float | None:
        """Microseconds of the bytes at the copy's rate."""
        return None if self.copy_rate is None else self.moved / self.copy_rate * 1e6

    @property
    def by_operations(self) -> float | None:
        """Microseconds of the operations at the published rate."""
        return None if self.matrix_peak is None else self.operations / self.matrix_peak * 1e6


def moved(row: OperatorRow, *, trained: bool) -> int:
    """Bytes that must move: Q, K, V read and Y written, 2 B T (3 d + h), K having h channels.

    Trained, the backward pass besides reads Q, K, V, dY and writes dQ, dK, dV: 2 B T (8 d + 3 h) in all.
    """
    tokens, heads = row.batch * math.prod(row.grid), row.heads
    return VALUE_BYTES * tokens * (8 * DIM + 3 * heads if trained else 3 * DIM + heads)


def product_pairs(row: OperatorRow) -> int:
    """Pairs of target and source that one product of a channel takes, tiles' padding left out.

    Indexed AFT-conv multiplies no matrices: 0. The others: `kernel_pairs`.
    """
    return 0 if row.operator == "indexed" else kernel_pairs(row.grid, row.heads, row.window)


def operations(row: OperatorRow, *, trained: bool) -> int:
    """Operations of the matrix units: 2 B (d + h) P forward, a numerator a channel and a denominator a head.

    The backward pass adds as much twice: the gradients of values and keys (transposed weights times the gradients of
    numerators and denominators) and that of the weights (those gradients times weighted values and keys).
    """
    return (6 if trained else 2) * row.batch * (DIM + row.heads) * product_pairs(row)


def copy_rate(rows: Iterable[OperatorRow], like: OperatorRow) -> float | None:
    """Bytes a second of the `copy` row of a shape, which reads and writes two tensors: 2 B T 4 d over its time."""
    for row in rows:
        if (row.operator, row.batch, row.grid) == ("copy", like.batch, like.grid):
            tokens = row.batch * math.prod(row.grid)
            return VALUE_BYTES * tokens * 4 * DIM / row.forward_us.median * 1e6
    return None


def roofline(measured: GPURecord, row: OperatorRow, column: str) -> Roofline:
    """The counts and bounds of a row's time, `forward_us` or `train_us`; ValueError where that was not measured."""
    trained, time = column == "train_us", row.time(column)
    if time is None:
        raise ValueError(f"{row.operator} on {row.grid} has no {column}")
    return Roofline(
        moved(row, trained=trained),
        operations(row, trained=trained),
        time.median,
        copy_rate(measured.operators, row),
        PUBLISHED.get(measured.hardware, (None, None))[1],
    )
