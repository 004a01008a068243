"""Triton kernels of the operators; `AVAILABLE` is False where Triton is not installed."""

from importlib.util import find_spec

AVAILABLE = find_spec("triton") is not None
