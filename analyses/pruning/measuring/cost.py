"""What a model costs and what it gets right: paired accuracy, logit differences, bytes, operations, latency."""

import copy
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from aft_lens.models import VisionModel
from aft_lens.progress import progress

Batches = Sequence[tuple[Tensor, Tensor]]
"""Fixed (images `b c y x`, labels `b`) pairs that can be gone through again."""


@dataclass(frozen=True)
class Latency:
    """Wall time of one forward pass of a whole batch, in milliseconds."""

    device: str
    batch: int
    mean_ms: float
    sd_ms: float
    median_ms: float
    repeats: int
    low_ms: float | None = None
    """The quartiles below and above the median; None in records from before they were kept."""
    high_ms: float | None = None
    least_ms: float | None = None
    cpu_ms: float | None = None
    """The least processor time of all threads on a CPU, which other work on the machine hardly changes; None on a GPU,
    and, as the least wall time, in records from before they were kept."""

    def __str__(self) -> str:
        """The median with its quartiles, which one busy moment of the machine leaves as they are."""
        around = "" if self.low_ms is None or self.high_ms is None else f" [{self.low_ms:.2f}, {self.high_ms:.2f}]"
        return f"{self.median_ms:.2f}{around}"

    @property
    def spread_ms(self) -> float:
        """From the lower quartile to the upper one; 0 where they are not known."""
        return 0.0 if self.low_ms is None or self.high_ms is None else self.high_ms - self.low_ms


def unsure(names: tuple[str, str], first: Latency, second: Latency) -> str:
    """A sentence where the spread of two models' times exceeds their difference; empty where it does not."""
    spread, gap = max(first.spread_ms, second.spread_ms), abs(first.median_ms - second.median_ms)
    if spread <= gap:
        return ""
    return (
        f"{names[0]} and {names[1]}: the times' spread (quartiles {spread:.2f} ms apart) exceeds their difference "
        f"({gap:.2f} ms), which of the two is faster is not known; time them on a machine at rest"
    )


@torch.inference_mode()
def predict(model: VisionModel, batches: Batches) -> tuple[Tensor, Tensor]:
    """Logits (`images classes`) and labels of every image, on the CPU. Raises ValueError without any image."""
    if not batches:
        raise ValueError("batches must hold at least one (images, labels) pair, got none")
    device = next(model.parameters()).device
    model.eval()
    logits = torch.cat([model(images.to(device)).float().cpu() for images, _ in batches])
    return logits, torch.cat([labels.cpu() for _, labels in batches])


def tensor_bytes(model: VisionModel) -> int:
    """Bytes of the model's safetensors file."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    return len(safetensors.torch.save(state))


class _Everywhere:
    """In place of PyTorch's tracker of modules: all that is counted is of the whole."""

    parents = ("Global",)

    def __enter__(self) -> None:
        """Nothing is hooked."""

    def __exit__(self, *_: object) -> None:
        """Nothing is unhooked."""


class _Operations(FlopCounterMode):
    """A counter that leaves other threads alone: PyTorch's own hooks into every forward pass of the process."""

    def __init__(self) -> None:
        super().__init__(display=False)
        self.mod_tracker: Any = _Everywhere()


@torch.no_grad()
def operations(model: VisionModel, image: Tensor) -> int:
    """Floating-point operations of one image (`1 c y x`) in matrix products and convolutions.

    Counted on the CPU by torch.utils.flop_counter, which leaves out element-wise work, gathers and custom kernels.
    """
    counter = _Operations()
    counted = copy.deepcopy(model).cpu() if next(model.parameters()).is_cuda else model
    with counter:
        counted(image.cpu())
    return int(counter.get_total_flops())


@torch.inference_mode()
def latencies(
    models: Sequence[nn.Module], images: Tensor, *, batch: int = 64, seconds: float = 0.6, least: int = 5
) -> list[Latency]:
    """Time models side by side on one batch, taking turns so that a busy moment falls on all of them alike.

    `images` (`b c y x`) are repeated to `batch`; each model runs at least `least` times after two untimed
    passes, and until it has used about `seconds`.
    """
    device = next(models[0].parameters()).device
    repeated = images.repeat(-(-batch // len(images)), 1, 1, 1)[:batch].to(device)
    times: list[list[float]] = [[] for _ in models]
    used: list[list[float]] = [[] for _ in models]
    for model in models:
        model.eval()
        for _ in range(2):
            model(repeated)
    end = time.perf_counter() + seconds * len(models)
    while time.perf_counter() < end or len(times[0]) < least:
        for model, taken, spent in zip(models, times, used, strict=True):
            begun = time.process_time()
            taken.append(_once(model, repeated))
            spent.append((time.process_time() - begun) * 1e3)
    quartiles = [statistics.quantiles(taken, n=4, method="inclusive") for taken in times]
    return [
        Latency(
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            batch=batch,
            mean_ms=statistics.fmean(taken),
            sd_ms=statistics.stdev(taken),
            median_ms=statistics.median(taken),
            repeats=len(taken),
            low_ms=low,
            high_ms=high,
            least_ms=min(taken),
            cpu_ms=None if device.type == "cuda" else min(spent),
        )
        for taken, spent, (low, _, high) in zip(times, used, quartiles, strict=True)
    ]


def latencies_by_device(
    models: Sequence[VisionModel], images: Tensor, *, batch_sizes: Sequence[int] = (64, 1), seconds: float = 0.6
) -> list[tuple[Latency, ...]]:
    """Every model's latencies at every batch size: on its own device, then on the CPU or the GPU if there is one."""
    own = next(models[0].parameters()).device
    other = "cpu" if own.type == "cuda" else "cuda" if torch.cuda.is_available() else None
    places = [models] if other is None else [models, [copy.deepcopy(model).to(other) for model in models]]
    runs = [(there, size) for there in places for size in batch_sizes]
    taken = [latencies(there, images, batch=size, seconds=seconds) for there, size in progress(runs, "latencies")]
    return [tuple(batch[place] for batch in taken) for place in range(len(models))]


def _once(model: nn.Module, images: Tensor) -> float:
    """Milliseconds of one pass, waiting for a GPU to finish."""
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    start = time.perf_counter()
    model(images)
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    return (time.perf_counter() - start) * 1e3
