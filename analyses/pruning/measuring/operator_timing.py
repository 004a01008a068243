"""The mixing core alone: k-offset indexing against every dense form, and where gathering stops winning.

python -m analyses.pruning.measuring.operator_timing --batch 64 --side 14 --dim 192 --heads 32 --window 11 --out DIR
"""

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import torch
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

from aft_lens.ops import aft_conv, aft_indexed
from analyses import theme
from analyses.command import run_module
from analyses.result import Result, Table

DENSE = ("auto", "convolution", "matmul")
KEEPS = (0, 1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Timing:
    """Wall time of one call of an operator."""

    form: str
    keep: int
    """Offsets a head; for dense forms the whole window."""
    mean_ms: float
    sd_ms: float
    median_ms: float
    repeats: int


@dataclass(frozen=True)
class CoreTimings(Result):
    """Dense and indexed timings of one shape on one device, without gradients."""

    batch: int
    side: int
    dim: int
    heads: int
    window: int
    device: str
    threads: int
    rows: list[Timing]
    name = "core"
    size = (4.8, 3.6)

    def dense(self, form: str = "auto") -> Timing:
        """The dense row of a form; "fastest" is the one with the lowest median."""
        rows = [row for row in self.rows if row.form.startswith("dense")]
        if form == "fastest":
            return min(rows, key=lambda row: row.median_ms)
        return next(row for row in rows if row.form == f"dense {form}")

    def speedup(self, keep: int = 1, form: str = "auto") -> float:
        """Median dense time over median gather time."""
        gathered = next(row for row in self.rows if row.form == "gather" and row.keep == keep)
        return self.dense(form).median_ms / gathered.median_ms

    @property
    def break_even_keep(self) -> int | None:
        """The smallest measured k at which gathering is no faster than the fastest dense form; None if never."""
        dense = self.dense("fastest").median_ms
        slower = [row.keep for row in self.rows if row.form == "gather" and row.median_ms >= dense]
        return min(slower, default=None)

    def record(self) -> dict[str, Any]:
        """Everything measured."""
        return {
            **asdict(self),
            "speedup_one_offset": {form: self.speedup(1, form) for form in (*DENSE, "fastest")},
            "crossover": self.break_even_keep,
        }

    def table(self) -> Table:
        """A row a form and k."""
        columns = ("form", "k", "mean ± sd (ms)", "median (ms)")
        rows = [
            [row.form, str(row.keep), f"{row.mean_ms:.2f} ± {row.sd_ms:.2f}", f"{row.median_ms:.2f}"]
            for row in self.rows
        ]
        shape = f"batch {self.batch}, {self.side}x{self.side}, d {self.dim}, h {self.heads}"
        gains = [f"one offset is {self.speedup(1, form):.1f}x faster than dense {form}" for form in (*DENSE, "fastest")]
        return Table(
            columns, rows, f"{self.device}, {self.threads} threads of {os.cpu_count()}, {shape}",
            "\n".join([*gains, f"gather stops winning at k = {self.break_even_keep}"]),
        )  # fmt: skip

    def plot(self, figure: Figure | SubFigure) -> None:
        """Time against k with the dense forms as lines."""
        axis = figure.subplots()
        gathers = [row for row in self.rows if row.form == "gather"]
        axis.errorbar(
            [row.keep for row in gathers], [row.median_ms for row in gathers],
            yerr=[row.sd_ms for row in gathers], marker="o", label="k-offset gather",
        )  # fmt: skip
        for color, form in zip(("C1", "C2"), ("convolution", "matmul"), strict=True):
            axis.axhline(self.dense(form).median_ms, color=color, linestyle="--", label=f"dense, {form}")
        if self.break_even_keep is not None:
            words = f"gather no faster from k = {self.break_even_keep}"
            axis.axvline(self.break_even_keep, color="grey", linewidth=0.8, label=words)
        axis.set_xscale("symlog", base=2, linthresh=1)
        axis.set_xticks(keeps := [row.keep for row in gathers], [str(keep) for keep in keeps])
        axis.set_xlim(-0.3, 1.3 * max(keeps))
        axis.set(yscale="log", xlabel="offsets kept a head (k)", ylabel="median ms a batch")
        axis.set_title(f"batch {self.batch}, {self.side}×{self.side}, d {self.dim}, h {self.heads}", fontsize=10)
        axis.legend(frameon=False, fontsize=8)

    def interactive(self) -> go.Figure:
        """The same lines with the values under the pointer."""
        gathers = [row for row in self.rows if row.form == "gather"]
        figure = go.Figure(
            go.Scatter(
                x=[row.keep for row in gathers], y=[row.median_ms for row in gathers], name="k-offset gather",
                error_y={"type": "data", "array": [row.sd_ms for row in gathers]}, mode="lines+markers",
            )
        )  # fmt: skip
        for color, form in zip(theme.SERIES[1:], ("convolution", "matmul"), strict=False):
            words = f"dense, {form}"
            figure.add_hline(self.dense(form).median_ms, line_dash="dash", line_color=color, annotation_text=words)
        theme.layout(theme.axes(figure), height=400)
        figure.update_xaxes(title="offsets kept a head (k)")
        figure.update_yaxes(title="median ms a batch", type="log")
        return figure


def time_core(
    *,
    batch: int = 64,
    side: int = 14,
    dim: int = 192,
    heads: int = 32,
    window: int = 11,
    keeps: Sequence[int] = KEEPS,
    device: str = "cpu",
    seconds: float = 1.0,
    seed: int = 0,
) -> CoreTimings:
    """Time gate, pool and mixing of one layer's operator on random inputs, each form by itself.

    Raises ValueError if `dim` is no multiple of `heads`, or a k exceeds the window.
    """
    if dim % heads:
        raise ValueError(f"dim must be a multiple of heads, got {dim} and {heads}")
    keeps = sorted({1, *keeps})
    if keeps[-1] > window**2:
        raise ValueError(f"keeps must be at most the window's {window**2} places, got {keeps[-1]}")
    generator = torch.Generator().manual_seed(seed)
    value_shape = (batch, heads, dim // heads, side, side)
    query, value = (torch.randn(value_shape, generator=generator).to(device) for _ in range(2))
    key = torch.randn(batch, heads, side, side, generator=generator).to(device)
    bias = torch.randn(heads, window, window, generator=generator).to(device)
    place = torch.stack([torch.randperm(window**2, generator=generator) for _ in range(heads)]).to(device)
    offset = torch.stack([place // window - window // 2, place % window - window // 2], dim=-1)
    kept = bias.flatten(1).gather(1, place)
    rows = []
    with torch.inference_mode():
        for form in DENSE:
            dense = partial(aft_conv, query, key, value, bias, implementation=form)
            rows.append(_time(f"dense {form}", window**2, dense, seconds))
        for keep in keeps:
            w, o = kept[:, :keep].contiguous(), offset[:, :keep].contiguous()
            rows.append(
                _time("gather", keep, partial(aft_indexed, query, key, value, w, o, implementation="gather"), seconds)
            )
    name = torch.cuda.get_device_name(device) if query.is_cuda else platform.machine()
    return CoreTimings(batch, side, dim, heads, window, name, torch.get_num_threads(), rows)


def _time(form: str, keep: int, call: Callable[[], Tensor], seconds: float) -> Timing:
    """Repeat a call for about `seconds`, at least 7 times, after two untimed ones."""
    on_gpu = call().is_cuda
    call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 7 or time.perf_counter() < end:
        if on_gpu:
            torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        if on_gpu:
            torch.cuda.synchronize()
        times.append((time.perf_counter() - start) * 1e3)
    return Timing(form, keep, statistics.fmean(times), statistics.stdev(times), statistics.median(times), len(times))


def command(
    batch: int = 64,
    side: int = 14,
    dim: int = 192,
    heads: int = 32,
    window: int = 11,
    keeps: tuple[int, ...] = KEEPS,
    device: str = "cpu",
    seconds: float = 1.0,
    threads: int = 0,
    out: Path | None = None,
) -> None:
    """Time one layer's mixing core, dense and indexed, and print how much faster k offsets are.

    Args:
        batch: images.
        side: grid positions on a side.
        dim: width d.
        heads: position biases h.
        window: side of the dense window.
        keeps: offsets a head to time.
        device: cpu or cuda.
        seconds: time for each row.
        threads: CPU threads; 0 leaves torch's number.
        out: a folder for JSON and figures.
    """
    if threads:
        torch.set_num_threads(threads)
    found = time_core(
        batch=batch, side=side, dim=dim, heads=heads, window=window, keeps=keeps, device=device, seconds=seconds
    )
    print(found)
    if out is not None:
        print("\n".join(str(path) for path in found.save(out)))


if __name__ == "__main__":
    run_module("analyses.pruning.measuring.operator_timing", command)
