"""Time and memory of forward plus backward, measured the same way for every contestant."""

import ctypes
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

os.environ.setdefault("KINETO_LOG_LEVEL", "99")

FLUSH_BYTES = 2**26
"""Written between two timings, so that none finds its inputs in the cache that the one before left."""


TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""glibc's names (mallopt(3)) for when freed memory goes back to the system, and what is mapped for itself."""
WARM_BYTES = 2**31
"""Touched once by `keep_memory`: more than any contestant needs."""


def keep_memory() -> bool:
    """Have glibc keep what is freed, as jemalloc and tcmalloc do; False where the C library is another one.

    By default it hands large blocks back to the system, and the next pass pays for every page anew: a cost of
    the allocator that falls on contestants by chance.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL("libc.so.6").mallopt
    kept = bool(mallopt(TRIM_THRESHOLD, 2**31 - 1)) and bool(mallopt(MMAP_THRESHOLD, 2**30))
    blocks = [torch.ones(WARM_BYTES // 32) for _ in range(8)]
    del blocks
    return kept


@dataclass(frozen=True)
class Contestant:
    """Something to measure: a function and its differentiable inputs."""

    run: Callable[..., Tensor]
    inputs: Sequence[Tensor]

    def __call__(self) -> None:
        """One forward and backward pass with a cotangent of ones; gradients are dropped."""
        out = self.run(*self.inputs)
        torch.autograd.grad(out, self.inputs, torch.ones_like(out))


def interleaved(contestants: Mapping[str, Contestant], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each contestant in each of `rounds` rounds, after two that do not count.

    All contestants take turns, so that a slower spell of the machine falls on all.
    """
    flush = torch.zeros(FLUSH_BYTES // 4)
    order = random.Random(0)
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for step in range(rounds + 2):
        for name in order.sample(list(contestants), len(contestants)):
            flush.add_(1)
            start = time.perf_counter()
            contestants[name]()
            if step >= 2:
                times[name].append((time.perf_counter() - start) * 1e3)
    return times


def ratio(times: Mapping[str, Sequence[float]], one: str, other: str) -> float:
    """Median over rounds of the time of `one` over that of `other` in the same round."""
    return statistics.median(a / b for a, b in zip(times[one], times[other], strict=True))


def median_ms(contestant: Contestant, seconds: float, most: int = 15) -> float:
    """Median milliseconds of as many runs as `seconds` allow, at least one, after one that does not count."""
    contestant()
    times: list[float] = []
    while not times or (sum(times) < seconds and len(times) < most):
        start = time.perf_counter()
        contestant()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def peak_bytes(contestant: Contestant) -> int:
    """Largest number of live bytes from PyTorch's CPU allocator during a pass, above the inputs.

    Outputs, gradients and everything kept for backward count; the inputs do not. Sums the allocations and
    releases that the profiler records.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as record:
        contestant()
    result = record.profiler.kineto_results if record.profiler else None
    if result is None:
        raise RuntimeError("the profiler recorded nothing: this PyTorch was built without Kineto")
    events = [(event.start_ns(), event.nbytes()) for event in result.events() if event.name() == "[memory]"]
    live = peak = 0
    for _, size in sorted(events, key=lambda event: event[0]):
        live += size
        peak = max(peak, live)
    return peak


def peak_resident(contestant: Contestant) -> int | None:
    """Growth of the process's peak resident memory in a pass, in bytes, libraries' own buffers included.

    Linux alone: freed memory is handed back, the high-water mark reset and read again; None elsewhere.
    """
    status, clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not sys.platform.startswith("linux") or not os.access(clear, os.W_OK):
        return None
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    clear.write_text("5")
    before = _bytes(status, "VmRSS")
    contestant()
    return _bytes(status, "VmHWM") - before


def _bytes(status: Path, name: str) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def exponent(lengths: Sequence[int], values: Sequence[float]) -> float:
    """Slope of log(value) over log(length), by least squares."""
    return float(np.polyfit(np.log(lengths), np.log(values), 1)[0])
