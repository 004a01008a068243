"""Hardware counters of AFT-conv's kernels by Nsight Compute: `python -m analyses.bench.gpu.counters`."""

import csv
import io
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from aft_lens.files import write_whole
from analyses.bench.gpu.operators import OPERATORS, Case
from analyses.bench.gpu.record import record_name
from analyses.command import run_module
from analyses.provenance import RESULTS, made_by
from analyses.result import Table, dump

CASES = tuple(
    Case(batch, (side, side), heads, 11, ("aft_conv",))
    for batch, side, heads in ((256, 14, 32), (256, 14, 384), (16, 56, 32))
)
METRICS = {
    "microseconds": "gpu__time_duration.sum",
    "memory": "gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed",
    "matrix": "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed",
    "issue": "sm__inst_issued.avg.pct_of_peak_sustained_active",
    "warps": "sm__warps_active.avg.pct_of_peak_sustained_active",
    "registers": "launch__registers_per_thread",
}
"""What Nsight Compute calls each field of a `KernelRow`."""
METHOD = (
    "One forward and backward pass of AFT-conv in bfloat16, d = 384, after two that warm up, each kernel by itself and "
    "with caches flushed before it, so that times are longer than in a run; clocks as they are. Percent of the peak: "
    "memory of the device, matrix units, issue slots, resident warps."
)


@dataclass(frozen=True)
class KernelRow:
    """A launch of a kernel."""

    heads: int
    side: int
    """Of the grid."""
    kernel: str
    microseconds: float
    memory: float
    """Percent of the peak, as all below but the registers."""
    matrix: float
    issue: float
    warps: float
    registers: float
    """Of a thread."""


def command(out: Path | None = None, *, profiled: int | None = None) -> None:
    """Print and save the counters of every kernel that an AFT-conv launches.

    Args:
        out: Folder of the JSON; if left out results/ below the folder one stands in, in a checkout analyses/results.
        profiled: Number of the case to run under the profiler, which asks for it itself.
    """
    if profiled is not None:
        return run_case(CASES[profiled])
    if not torch.cuda.is_available() or shutil.which("ncu") is None:
        raise ValueError("counters need a CUDA device and Nsight Compute's ncu on the PATH; install both")
    rows = [row for number, case in enumerate(CASES) for row in read_rows(profile(number), case)]
    made = made_by("cuda")
    print(table(rows).text())
    path = (out or RESULTS) / f"{record_name(made['hardware']).replace('gpu_', 'counters_')}.json"
    write_whole(path, dump({**made, "method": METHOD, "rows": [asdict(row) for row in rows]}))
    print(f"wrote {path}")


def run_case(case: Case) -> None:
    """A forward and backward pass between the marks that the profiler waits for."""
    tensors = [tensor.requires_grad_() for tensor in case.inputs("aft_conv", 0)]
    for number in range(3):
        if number == 2:
            torch.cuda.synchronize()
            torch.cuda.profiler.start()
        out = OPERATORS["aft_conv"](case, *tensors)
        torch.autograd.grad(out, tensors, out.detach())
    torch.cuda.synchronize()
    torch.cuda.profiler.stop()


def profile(number: int) -> str:
    """What Nsight Compute prints of a case; ValueError with its words where it cannot read the counters."""
    profiler = ["ncu", "--clock-control", "none", "--profile-from-start", "off", "--csv", "--page", "raw",
                "--print-units", "base", "--metrics", ",".join(METRICS.values())]  # fmt: skip
    program = [sys.executable, "-m", "analyses.bench.gpu.counters", f"--profiled={number}"]
    done = subprocess.run([*profiler, *program], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"ncu ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


def read_rows(printed: str, case: Case) -> list[KernelRow]:
    """Rows of the table that Nsight Compute printed, a launch each; ValueError where there is none."""
    lines = [line for line in printed.splitlines() if line.startswith('"')]
    launches = list(csv.DictReader(io.StringIO("\n".join(lines))))[1:]  # the first has the units
    if not launches:
        raise ValueError(f"ncu printed no table: {printed[-2000:]}")
    missing = [metric for metric in METRICS.values() if metric not in launches[0]]
    if missing:
        raise ValueError(f"ncu has no {', '.join(missing)} on this GPU; change METRICS")
    found = []
    for launch in launches:
        values = {field: _number(launch[metric]) for field, metric in METRICS.items()}
        values["microseconds"] /= 1e3
        found.append(KernelRow(case.heads, case.grid[0], launch["Kernel Name"].partition("(")[0], **values))
    return found


def _number(words: str) -> float:
    """A cell's number; NaN where the GPU does not count it."""
    return float("nan") if words in ("", "n/a") else float(words.replace(",", ""))


def table(rows: Iterable[KernelRow]) -> Table:
    """A launch a line."""
    columns = (
        "Heads", "Grid", "Kernel", "µs", "Memory, %", "Matrix units, %", "Issue, %", "Warps, %", "Registers",
    )  # fmt: skip
    cells = [
        [str(row.heads), f"{row.side} × {row.side}", row.kernel, f"{row.microseconds:.1f}",
         *(f"{value:.0f}" for value in (row.memory, row.matrix, row.issue, row.warps, row.registers))]
        for row in rows
    ]  # fmt: skip
    return Table(columns, cells, note=METHOD)


if __name__ == "__main__":
    run_module("analyses.bench.gpu.counters", command)
