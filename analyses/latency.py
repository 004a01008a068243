"""Which of two models is faster here: timed in turn, with the machine's load, and no verdict where it is too busy."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from matplotlib.figure import Figure, SubFigure
from torch import Tensor, nn

from aft_lens.checkpoint import load_checkpoint
from aft_lens.progress import progress
from analyses import theme
from analyses.command import report
from analyses.provenance import environment
from analyses.result import Result, Table

ROUNDS = 60
"""Turns, in each of which both models run once, in an order that is drawn."""
WARM = 3
BUSY = 0.25
"""Share of a processor that others may use beside the measurement before there is no verdict."""
UNSTEADY = 0.35
"""Quartile range over median of either model's times, beyond which there is no verdict."""
RESAMPLES = 4000


@dataclass(frozen=True)
class Timing:
    """One model's passes."""

    label: str
    times: Float[np.ndarray, "rounds"]
    """Milliseconds of one pass of the batch, a round each."""

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """Lower quartile, median and upper quartile, in milliseconds."""
        low, middle, high = np.percentile(self.times, [25, 50, 75])
        return float(low), float(middle), float(high)

    @property
    def unsteady(self) -> bool:
        """Whether its times scatter too much for a verdict."""
        low, middle, high = self.quartiles
        return (high - low) > UNSTEADY * middle


@dataclass(frozen=True)
class LatencyPair(Result):
    """Two models timed in turn on the same batch."""

    name = "latency"
    size = (6.5, 2.4)

    first: Timing
    second: Timing
    batch: int
    threads: int
    others: float
    """Processors that other work used during the measurement, 0 if the machine was at rest."""
    interval: tuple[float, float]
    """95 % bootstrap interval over rounds of the median of second less first, in milliseconds."""

    @property
    def difference(self) -> float:
        """Median over rounds of the second model's time less the first one's, in milliseconds."""
        return float(np.median(self.second.times - self.first.times))

    @property
    def refusal(self) -> str:
        """Why there is no verdict; empty where there is one."""
        if self.others > BUSY:
            return (
                f"no verdict: other work used {self.others:.1f} processors meanwhile, more than {BUSY:g}; measure "
                "again when the machine is at rest"
            )
        shaky = [one.label for one in (self.first, self.second) if one.unsteady]
        return f"no verdict: the times of {' and '.join(shaky)} scatter too much; measure again" if shaky else ""

    @property
    def verdict(self) -> str:
        """Which is faster, in words, or why that is not known."""
        if self.refusal:
            return self.refusal
        low, high = self.interval
        words = f"{self.difference:+.2f} ms [{low:+.2f}, {high:+.2f}]"
        if low <= 0 <= high:
            return f"neither is faster: {self.second.label} less {self.first.label} is {words}"
        faster, slower = (
            (self.second.label, self.first.label) if self.difference < 0 else (self.first.label, self.second.label)
        )
        return f"{faster} is faster than {slower}: {self.second.label} less {self.first.label} is {words}"

    def record(self) -> dict[str, Any]:
        """Every time, and what the machine did meanwhile."""
        return {
            **environment(), "batch": self.batch, "threads": self.threads, "others": self.others,
            "models": [{"label": one.label, "milliseconds": one.times} for one in (self.first, self.second)],
            "difference_ms": self.difference, "interval_ms": self.interval, "verdict": self.verdict,
        }  # fmt: skip

    def table(self) -> Table:
        """A row a model, and the verdict."""
        rows = [[one.label, *(f"{value:.2f}" for value in one.quartiles)] for one in (self.first, self.second)]
        title = f"a batch of {self.batch}, {self.threads} thread(s), {len(self.first.times)} rounds taking turns"
        return Table(
            ["model", "lower quartile (ms)", "median (ms)", "upper quartile (ms)"], rows, title, self.verdict, words=1
        )

    def plot(self, figure: Figure | SubFigure) -> None:
        """Boxes of both models' times."""
        axis = figure.subplots()
        axis.boxplot(
            [self.first.times, self.second.times], orientation="horizontal", showfliers=False,
            tick_labels=[self.first.label, self.second.label],
        )  # fmt: skip
        axis.set_xlabel(f"ms for a batch of {self.batch}")
        axis.invert_yaxis()

    def interactive(self) -> go.Figure:
        """The same with values under the pointer."""
        figure = go.Figure(
            [go.Box(x=one.times, name=one.label, marker_color=theme.SERIES[number], boxpoints="all", pointpos=0)
             for number, one in enumerate((self.first, self.second))]
        )  # fmt: skip
        theme.layout(theme.axes(figure), height=240, showlegend=False)
        figure.update_xaxes(title=f"ms for a batch of {self.batch}", rangemode="tozero")
        return figure.update_yaxes(autorange="reversed", automargin=True)


@torch.inference_mode()
def time_pair(
    models: Sequence[tuple[str, nn.Module, Tensor]], *, rounds: int = ROUNDS, seed: int = 0
) -> LatencyPair:  # fmt: skip
    """Time two models, each with its label and batch of images, in turn.

    Every round runs both, in an order drawn from `seed`, so that a busy moment falls on both alike and their
    difference is paired. Raises ValueError unless there are two models and 8 rounds or more.
    """
    if len(models) != 2 or rounds < 8:
        raise ValueError(f"two models and 8 rounds or more are needed, got {len(models)} and {rounds}")
    for _, model, images in models:
        model.eval()
        for _ in range(WARM):
            model(images)
    taken = np.zeros((2, rounds))
    orders = np.random.default_rng(seed).integers(2, size=rounds)
    before, start = _busy(), time.perf_counter()
    for turn in progress(range(rounds), "timing", patience=0.0):
        for which in (orders[turn], 1 - orders[turn]):
            _, model, images = models[which]
            begun = time.perf_counter()
            model(images)
            taken[which, turn] = 1e3 * (time.perf_counter() - begun)
    others = max(0.0, (_busy() - before) / (time.perf_counter() - start))
    drawn = np.random.default_rng(seed).integers(rounds, size=(RESAMPLES, rounds))
    low, high = np.percentile(np.median((taken[1] - taken[0])[drawn], axis=1), [2.5, 97.5])
    first, second = (Timing(label, taken[number]) for number, (label, _, _) in enumerate(models))
    batch = len(models[0][2])
    return LatencyPair(first, second, batch, torch.get_num_threads(), others, (float(low), float(high)))


def _busy() -> float:
    """Seconds of processor time that everything but this process has used since the machine started."""
    stat = Path("/proc/stat")
    if not stat.is_file():
        return 0.0
    user, nice, system, _, _, irq, soft, *_ = map(int, stat.read_text().split("\n", 1)[0].split()[1:])
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK") - time.process_time()


def command(
    first: str,
    second: str,
    batch: int = 64,
    rounds: int = ROUNDS,
    threads: int = 1,
    seed: int = 0,
    out: Path = Path("reports/latency"),
) -> None:
    """Time two models in turn, and say which is faster, or that the machine is too busy to say.

    Args:
        first: A checkpoint's folder, or the name of one that ships or was trained.
        second: Another.
        batch: Images a pass, of noise.
        rounds: Turns.
        threads: Of PyTorch.
        seed: Of the noise and the order of turns.
        out: Folder for latency.json, .png, .svg and .html.
    """
    torch.set_num_threads(threads)
    report(time_pair([noise_input(name, batch, seed) for name in (first, second)], rounds=rounds, seed=seed), out)


def noise_input(name: str, batch: int, seed: int = 0) -> tuple[str, nn.Module, Tensor]:
    """A checkpoint's label and model with a batch of noise of its size."""
    found = load_checkpoint(name)
    size = found.config.img_size
    images = torch.randn(batch, found.config.in_chans, size, size, generator=torch.Generator().manual_seed(seed))
    return Path(name).name, found.model, images
