"""The operators on a CPU: ratios to softmax attention, the best form of each shape, and curves over the length."""

import os
import statistics
from datetime import UTC, datetime
from pathlib import Path

import torch

from analyses.bench.operators.contestants import CURVES, conv, simple, softmax_attention, unsafe_conv, written_out_conv
from analyses.bench.operators.forms import form_table
from analyses.bench.operators.measure import (
    exponent,
    interleaved,
    keep_memory,
    median_ms,
    peak_bytes,
    peak_resident,
    ratio,
)
from analyses.bench.operators.record import CurvePoint
from analyses.bench.operators.result import OpsBench
from analyses.provenance import RESULTS, command_line, environment

LENGTHS = (196, 400, 784, 1600, 3136, 6400, 16384)
METHOD = (
    "Forward and backward of the core operator (no projections), float32, gradients of every input. Times: medians; "
    "ratios are medians over rounds in which the contestants take turns in random order, 64 MiB written between two "
    "timings. Freed memory stays with the process (mallopt, as jemalloc and tcmalloc do), but for "
    "ratios_default_allocator, taken before with glibc as it starts. Unsafe is Eq. 6's own sum in the same code, "
    "written_out the same by autograd; biases N(-5, 0.1^2), or N(0, 0.1^2) where it says mild_bias; keys N(0, 1), one "
    "of them 30 above where it says dominant_key (there the unsafe sum is wrong). Memory: "
    "peak_mib is the most live bytes of PyTorch's CPU allocator in a pass, above the inputs; resident_mib the growth "
    "of the process's peak resident memory, libraries' buffers included. Curves: batch 1, d = 384, window 32 (local), "
    "11 x 11 and 32 heads (conv), rank 128; exponents are least-squares slopes in log-log over every length."
)


def measure(*, quick: bool = False) -> OpsBench:
    """Run everything; `quick` takes few rounds and short lengths."""
    torch.manual_seed(0)
    load = [os.getloadavg()]
    rounds = 3 if quick else 31
    default, _ = _ratios(rounds)
    kept = keep_memory()
    ratios, milliseconds = _ratios(rounds)
    load.append(os.getloadavg())
    forms = form_table(3 if quick else 15, quick=quick)
    ratios["auto_vs_best_worst_case"] = max(row.auto_over_best for row in forms)
    load.append(os.getloadavg())
    curves = {name: _curve(name, LENGTHS[:3] if quick else LENGTHS) for name in CURVES}
    curves = {name: points for name, points in curves.items() if points}
    load.append(os.getloadavg())
    fits = {
        column: {
            name: exponent([point.length for point in points], [getattr(point, column) for point in points])
            for name, points in curves.items()
        }
        for column in ("peak_mib", "ms")
    }
    machine = {
        "command": command_line(),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        **environment(),
        "threads": torch.get_num_threads(),
        "seed": 0,
        "allocator": "keeps freed memory" if kept else "the system's default",
        "load_average_1min": [round(one, 2) for one, _, _ in load],
        "method": METHOD,
    }
    return OpsBench(ratios, fits["peak_mib"], fits["ms"], milliseconds, default, forms, curves, machine)


def _ratios(rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Ratios at batch 8, T = 196, d = 384, and the medians behind them."""
    grid = (14, 14)
    contestants = {
        "sdpa": softmax_attention(8, 196),
        "simple": simple(8, 196),
        "conv_h32": conv(8, grid, heads=32),
    }
    times = interleaved(contestants, rounds)
    ratios = {"simple_vs_sdpa": ratio(times, "simple", "sdpa"), "conv_h32_vs_sdpa": ratio(times, "conv_h32", "sdpa")}
    medians = {name: statistics.median(values) for name, values in times.items()}
    for level, peak, suffix in ((-5.0, 0.0, ""), (0.0, 0.0, "_mild_bias"), (-5.0, 30.0, "_dominant_key")):
        pair = {
            "stable": conv(8, grid, heads=384, level=level, peak=peak),
            "unsafe": unsafe_conv(8, grid, heads=384, level=level, peak=peak),
            "written_out": written_out_conv(8, grid, heads=384, level=level, peak=peak),
        }
        times = interleaved(pair, rounds)
        ratios[f"conv_h384_stable_vs_unsafe{suffix}"] = ratio(times, "stable", "unsafe")
        ratios[f"conv_h384_stable_vs_written_out{suffix}"] = ratio(times, "stable", "written_out")
        medians |= {f"conv_h384_{name}{suffix}": statistics.median(values) for name, values in times.items()}
    return ratios, medians


def _curve(name: str, lengths: tuple[int, ...]) -> list[CurvePoint]:
    """Time and memory of one contestant at each length that it is run at."""
    make, limit = CURVES[name]
    points = []
    for length in lengths:
        contestant = make(length) if limit is None or length <= limit else None
        if contestant is None:
            continue
        milliseconds = median_ms(contestant, seconds=2.0)
        resident = peak_resident(contestant)
        resident_mib = None if resident is None else resident / 2**20
        points.append(CurvePoint(length, milliseconds, peak_bytes(contestant) / 2**20, resident_mib))
    return points


def command(out: Path | None = None, *, quick: bool = False) -> None:
    """Measure the operators on this CPU; print the tables and save them."""
    result = measure(quick=quick)
    for table in (result.table(), result.form_table(), result.curve_table()):
        print(f"{table.text()}\n")
    for path in result.save(out or RESULTS):
        print(path)
