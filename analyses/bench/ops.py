"""The operators on a CPU: ratios to softmax attention, the best form of each shape, and curves over the length."""

import json
import os
import statistics
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from analyses.bench.contests import CURVES, conv, simple, softmax_attention, unsafe_conv, written_out_conv
from analyses.bench.figure import draw_curves
from analyses.bench.measure import exponent, interleaved, keep_memory, median_ms, peak_bytes, peak_resident, ratio
from analyses.bench.shapes import form_table
from analyses.provenance import RESULTS, environment

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


@dataclass(frozen=True)
class OpsBench:
    """What `aft-lens bench ops` measured."""

    ratios: dict[str, float]
    memory_exponents: dict[str, float]
    time_exponents: dict[str, float]
    milliseconds: dict[str, float]
    ratios_default_allocator: dict[str, float]
    forms: list[dict[str, Any]]
    curves: dict[str, list[dict[str, Any]]]
    machine: dict[str, Any] = field(default_factory=dict)

    def save(self, out: Path, name: str = "ops_cpu") -> list[Path]:
        """Write JSON and the curves' figures into `out`; returns the files."""
        out.mkdir(parents=True, exist_ok=True)
        path = out / f"{name}.json"
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")
        return [path, *draw_curves(self.curves, out, name)]


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
    ratios["auto_vs_best_worst_case"] = max(row["auto_over_best"] for row in forms)
    load.append(os.getloadavg())
    curves = {name: _curve(name, LENGTHS[:3] if quick else LENGTHS) for name in CURVES}
    curves = {name: points for name, points in curves.items() if points}
    load.append(os.getloadavg())
    fits = {
        column: {
            name: exponent([p["length"] for p in points], [p[column] for p in points])
            for name, points in curves.items()
        }
        for column in ("peak_mib", "ms")
    }
    machine = {
        "command": "aft-lens bench ops" + (" --quick true" if quick else ""),
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
    """The issue's ratios at batch 8, T = 196, d = 384, and the medians behind them."""
    grid = (14, 14)
    contests = {
        "sdpa": softmax_attention(8, 196),
        "simple": simple(8, 196),
        "conv_h32": conv(8, grid, heads=32),
    }
    times = interleaved(contests, rounds)
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


def _curve(name: str, lengths: tuple[int, ...]) -> list[dict[str, Any]]:
    """Time and memory of one contestant at each length that it is run at."""
    make, limit = CURVES[name]
    points = []
    for length in lengths:
        contest = make(length) if limit is None or length <= limit else None
        if contest is None:
            continue
        milliseconds = median_ms(contest, seconds=2.0)
        resident = peak_resident(contest)
        points.append(
            {
                "length": length,
                "ms": milliseconds,
                "peak_mib": peak_bytes(contest) / 2**20,
                "resident_mib": None if resident is None else resident / 2**20,
            }
        )
    return points


def command(out: Path | None = None, *, quick: bool = False) -> None:
    """Measure the operators on this CPU; print the tables and save them."""
    result = measure(quick=quick)
    print(f"{'ratio':45} {'':6} default allocator")
    for name, value in result.ratios.items():
        print(f"{name:45} {value:6.2f} {result.ratios_default_allocator.get(name, float('nan')):6.2f}")
    print(f"\n{'shape':58} {'auto':12} {'best':12} auto/best")
    for row in result.forms:
        print(f"{row['shape']:58} {row['auto']:12} {row['best']:12} {row['auto_over_best']:.2f}")
    print(f"\n{'operator':24}" + "".join(f"{t:>12}" for t in LENGTHS) + "  memory^ time^")
    for name, points in result.curves.items():
        cells = "".join(f"{p['ms']:5.0f}/{p['peak_mib']:<6.0f}" for p in points)
        print(f"{name:24}{cells:84}  {result.memory_exponents[name]:6.2f} {result.time_exponents[name]:5.2f}")
    print("(cells: ms / MiB above the inputs)")
    for path in result.save(out or RESULTS):
        print(path)
