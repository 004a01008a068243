"""Rows of ops_cpu.json: the forms at a shape, an operator at a length."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class FormTimes:
    """Every form of an operator at one shape."""

    shape: str
    """Operator, grid, window, heads and batch in words."""
    ms: Mapping[str, float]
    """Median milliseconds by form."""
    auto: str
    """The form that `auto` takes."""
    best: str
    """The fastest form."""
    auto_over_best: float
    """Time of `auto` over that of `best`."""


@dataclass(frozen=True)
class CurvePoint:
    """One operator at one length, forward and backward."""

    length: int
    ms: float
    """Median milliseconds."""
    peak_mib: float
    """Most live MiB of PyTorch's CPU allocator, above the inputs."""
    resident_mib: float | None
    """Growth of the process's peak resident memory in MiB; None where the system does not tell."""
