"""Bits a symbol of a decoder over a whole split, exactly: every symbol once, with its context stated."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from aft_lens.data.sequences import Pixels, Stream
from aft_lens.progress import progress as bar
from aft_lens.statistics import Z

BATCH_SYMBOLS = 2**15
"""Symbols of a measured batch."""


@dataclass(frozen=True)
class Bits:
    """-log2 of the probability that a decoder gives to each symbol of a split; intervals are 95 %."""

    total: Float[np.ndarray, "window"]
    """Bits of each window's counted symbols."""
    counts: Int[np.ndarray, "window"]
    """Counted symbols of each window."""
    by_place: Float[np.ndarray, "t"]
    """Mean bits by place in the window; NaN where none is counted."""
    context: str
    """What each symbol was predicted from, in words."""

    @property
    def symbols(self) -> int:
        """Counted symbols."""
        return int(self.counts.sum())

    @property
    def mean(self) -> float:
        """Bits a symbol."""
        return float(self.total.sum() / self.counts.sum())

    @property
    def interval(self) -> tuple[float, float]:
        """Of the mean, over windows as they are drawn from all there might be; NaN for one."""
        return ratio_interval(self.total, self.counts)

    def channels(self, grid: tuple[int, ...]) -> list[float]:
        """Bits a sub-pixel by channel of images of rows, columns and channels."""
        return np.nanmean(self.by_place.reshape(-1, grid[-1]), 0).tolist()


@dataclass(frozen=True)
class Change:
    """Bits of one decoder less those of another on the same windows, a symbol."""

    mean: float
    interval: tuple[float, float]

    def __str__(self) -> str:
        """Mean and interval."""
        return f"{self.mean:+.4f} [{self.interval[0]:+.4f}, {self.interval[1]:+.4f}]"


def change(before: Bits, after: Bits) -> Change:
    """Paired by window. Raises ValueError where the windows differ."""
    if not np.array_equal(before.counts, after.counts):
        raise ValueError(f"before and after must be of the same windows, got {len(before.counts)}, {len(after.counts)}")
    difference = after.total - before.total
    return Change(float(difference.sum() / before.counts.sum()), ratio_interval(difference, before.counts))


def ratio_interval(sums: Float[np.ndarray, "n"], counts: Int[np.ndarray, "n"]) -> tuple[float, float]:
    """Normal interval of the ratio of two sums over independent parts, by linearisation; NaN for one part."""
    if len(sums) < 2:
        return math.nan, math.nan
    mean = sums.sum() / counts.sum()
    error = np.std(sums - mean * counts, ddof=1) / (counts.mean() * math.sqrt(len(sums)))
    return float(mean - Z * error), float(mean + Z * error)


@torch.no_grad()
def measure_bits(
    model: Callable[[Tensor], Tensor],
    split: Pixels | Stream,
    *,
    context: int = 1,
    limit: int | None = None,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> Bits:
    """Bits of every symbol of a split, or of its first `limit` images or windows of text.

    `model` maps symbols `b t` to logits of each one's next symbol, a module in evaluation mode. Text is read in windows
    that overlap so far that each symbol has `context` symbols before it or more; the text's first have what there is.
    Log-probabilities in float32 or wider, sums in float64. Raises ValueError on a context that no window has.
    """
    if isinstance(model, torch.nn.Module):
        model.to(device).eval()
    length = split.length if isinstance(split, Stream) else split.symbols.shape[1]
    sums, counts = [], []
    by_place, seen = (torch.zeros(length, dtype=torch.float64, device=device) for _ in range(2))
    batch = max(1, BATCH_SYMBOLS // length)
    for window in bar(split.to(device).windows(batch, context, limit), "bits", shown=progress):
        inputs, targets = window.symbols[:, :-1], window.symbols[:, 1:]
        logits = model(inputs)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        nats = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)
        bits = nats[:, window.counted :].double() / math.log(2)
        sums.append(bits.sum(1).cpu())
        counts.append(torch.full((len(bits),), bits.shape[1]))
        by_place[window.counted : window.counted + bits.shape[1]] += bits.sum(0)
        seen[window.counted : window.counted + bits.shape[1]] += len(bits)
    return Bits(
        torch.cat(sums).numpy(), torch.cat(counts).numpy(), (by_place / seen).cpu().numpy(), split.context(context)
    )
