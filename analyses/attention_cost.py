"""Peak memory and time of streamed relative attention, against the plain unfused forward pass over the same images."""

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, get_args

import plotly.graph_objects as go
import torch
from matplotlib.figure import Figure, SubFigure
from plotly.subplots import make_subplots
from torch import Tensor

from aft_lens.data import ResidentBatches, load_data
from aft_lens.extraction import stream_relative, unfused
from aft_lens.models import create_model
from analyses import theme
from analyses.command import run_module
from analyses.provenance import RESULTS
from analyses.result import Result, Table, published

Form = Literal["plain", "streamed"]
BATCH = 64
AXES = ("time (s)", "peak growth (MiB)")
"""What is drawn over the number of images."""
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RETURNING = ("MALLOC_MMAP_THRESHOLD_", str(2**20))
"""Has glibc give freed memory of a mebibyte or more back at once. Otherwise it keeps some for later, differently from
run to run; giving it back takes time, so that time and memory are measured in different processes."""


@dataclass(frozen=True)
class Run:
    """One pass over the images in a process of its own."""

    form: Form
    """"plain": the unfused forward pass alone. "streamed": relative attention, verified and summed by offset."""
    images: int
    seconds: float
    peak_growth_mib: float
    """Largest resident memory during the pass, less that before it, with the model and the images in memory."""
    returning: bool = False
    """True: freed memory went back to the system at once (`RETURNING`); the peak is then that of what is held."""


@dataclass(frozen=True)
class AttentionCost(Result):
    """Runs of both forms over several numbers of images."""

    name = "attention_cost"

    runs: Sequence[Run]
    model: str
    data: str

    def seconds(self, form: Form, images: int) -> float:
        """Time of a form over a number of images."""
        wanted = (form, images, False)
        return next(run.seconds for run in self.runs if (run.form, run.images, run.returning) == wanted)

    @property
    def ratios(self) -> dict[int, float]:
        """Time of the streamed form over that of the plain one, by number of images."""
        counts = sorted({run.images for run in self.runs})
        return {n: self.seconds("streamed", n) / self.seconds("plain", n) for n in counts}

    @property
    def peaks(self) -> dict[int, float]:
        """Peak growth of the streamed form in MiB, freed memory given back at once, by number of images."""
        return {run.images: run.peak_growth_mib for run in self.runs if run.returning}

    def record(self) -> dict[str, Any]:
        """What was measured and how."""
        return {
            "what": "streamed relative attention against the plain unfused forward pass, each in a fresh process",
            "model": self.model,
            "weights": "random, seed 0",
            "data": f"{self.data}, test images in their order",
            "batch": BATCH,
            "threads": torch.get_num_threads(),
            "memory": "resident, of processes with " + "=".join(RETURNING) + ": freed memory goes back at once",
            "peak_growth_mib": self.peaks,
            "time_ratio": {count: round(ratio, 3) for count, ratio in self.ratios.items()},
            "runs": self.runs,
        }

    def table(self) -> Table:
        """A row a number of images."""
        rows = [
            [
                str(n),
                f"{self.seconds('plain', n):.1f}",
                f"{self.seconds('streamed', n):.1f}",
                f"{ratio:.2f}",
                f"{self.peaks[n]:.0f}",
            ]
            for n, ratio in self.ratios.items()
        ]
        return Table(["images", "plain (s)", "streamed (s)", "ratio", "peak growth (MiB)"], rows)

    def curves(self) -> list[tuple[str, str, list[int], list[float]]]:
        """What is drawn: (axis, name, numbers of images, values) of each line."""
        counts = list(self.ratios)
        times = [("time (s)", form, counts, [self.seconds(form, n) for n in counts]) for form in get_args(Form)]
        return [*times, ("peak growth (MiB)", "streamed", counts, [self.peaks[n] for n in counts])]

    def plot(self, figure: Figure | SubFigure) -> None:
        """Time of both forms and memory of the streamed one, over the number of images."""
        for axis, quantity in zip(figure.subplots(1, 2), AXES):
            for label, name, counts, values in self.curves():
                if label == quantity:
                    axis.plot(counts, values, marker="o", label=name)
            axis.set(xlabel="images", ylabel=quantity, ylim=(0, None))
            axis.legend(frameon=False)

    def interactive(self) -> go.Figure:
        """The same with values under the pointer."""
        figure = make_subplots(1, 2, subplot_titles=AXES)
        for label, name, counts, values in self.curves():
            line = go.Scatter(x=counts, y=values, name=name, hovertemplate="%{x} images: %{y:.4g}<extra></extra>")
            figure.add_trace(line, 1, 1 + AXES.index(label))
        figure.update_xaxes(title="images")
        return theme.layout(theme.axes(figure), height=380).update_yaxes(rangemode="tozero")


def measure(form: Form, images: int, model: str, data: str) -> Run:
    """One pass in this process, which should be fresh; raises FileNotFoundError where Linux's /proc is not."""
    if not CLEAR.exists():
        raise FileNotFoundError(f"{CLEAR} is not there: peak memory is measured on Linux alone")
    torch.manual_seed(0)
    vit = create_model(model).eval()
    batches = ResidentBatches(load_data(data), "test", BATCH)
    _pass("plain", vit, [next(iter(batches))[0][:1]])  # libraries allocate their own at first use
    CLEAR.write_text("5")  # the peak starts again from the present
    before, start = _memory("VmRSS"), time.perf_counter()
    seen = _pass(form, vit, _first(batches, images))
    seconds = time.perf_counter() - start
    growth = round(_memory("VmHWM") - before, 1)
    return Run(form, seen, round(seconds, 2), growth, os.environ.get(RETURNING[0]) == RETURNING[1])


def attention_cost(images: Sequence[int], model: str, data: str) -> AttentionCost:
    """Measure time and memory over each number of images, every pass in a fresh process."""
    runs = []
    for count in images:
        runs += [_fresh("plain", count, model, data), _fresh("streamed", count, model, data)]
        os.environ[RETURNING[0]] = RETURNING[1]
        try:
            runs.append(_fresh("streamed", count, model, data))
        finally:
            del os.environ[RETURNING[0]]
    return AttentionCost(runs, model, data)


def _fresh(form: Form, images: int, model: str, data: str) -> Run:
    """`measure` in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(measure, form, images, model, data).result()


def command(
    images: list[int] = [1000, 10000],  # noqa: B006 - read only; the command line shows it
    model: str = "vit_fashion",
    data: str = "fashion-mnist",
    out: Path = RESULTS / "attention_cost.json",
) -> None:
    """Publish the peak memory and time of relative attention over several numbers of images.

    Args:
        images: Numbers of test images.
        model: A registered ViT, with random weights: neither time nor memory depends on them.
        data: Data set whose test images are fed.
        out: Where the record is written.
    """
    result = attention_cost(images, model, data)
    print(result)
    print(f"wrote {published(result, out)}")


def _first(batches: ResidentBatches, images: int) -> Iterator[Tensor]:
    """Batches of the first images; ValueError if there are fewer."""
    left = images
    for batch, _ in batches:
        yield batch[:left]
        left -= len(batch[:left])
        if not left:
            return
    raise ValueError(f"images must be at most {images - left}, the test images there are, got {images}")


@torch.no_grad()
def _pass(form: Form, vit: Any, batches: Any) -> int:
    """Run one form over all batches and return the number of images."""
    if form == "streamed":
        return stream_relative(vit, batches).images
    seen = 0
    with unfused(vit):
        for batch in batches:
            seen += len(vit(batch))
    return seen


def _memory(field: str) -> float:
    """A field of this process's status, in MiB."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    run_module("analyses.attention_cost", command)
