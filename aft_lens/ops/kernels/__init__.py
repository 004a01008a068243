"""Triton kernels of the operators; `AVAILABLE` is False where Triton is not installed."""
