"""Time on a GPU by events: graphs replayed, calls launched."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch

from analyses.bench.gpu.record import Time


def replayed(calls: Sequence[Callable[[], Any]], replays: int = 15) -> Time:
    """Microseconds a call when a CUDA graph of all calls is replayed: median, and the quartiles."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            for call in calls:
                call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    graph.replay()
    times = [elapsed(graph.replay) * 1e3 / len(calls) for _ in range(replays)]
    low, middle, high = statistics.quantiles(times, n=4)
    return Time(middle, low, high)


def launched(calls: Sequence[Callable[[], Any]], rounds: int = 15) -> Time:
    """Microseconds a call when they are launched one after another: median, and the quartiles."""
    for call in calls:
        call()
    times = [elapsed(call) * 1e3 for _ in range(rounds) for call in calls]
    low, middle, high = statistics.quantiles(times, n=4)
    return Time(middle, low, high)


def elapsed(call: Callable[[], Any]) -> float:
    """Milliseconds of one call between two events."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)
