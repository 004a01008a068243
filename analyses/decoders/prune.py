"""Decoders with k offsets a layer: bits by k and criterion, and the parity of the form that computes no others."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import torch
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

from aft_lens.checkpoint import DecoderCheckpoint
from aft_lens.data.sequences import Pixels, Stream
from aft_lens.models import Decoder
from aft_lens.training.bits import Bits, Change, change
from analyses.decoders.edits import kept_offsets
from analyses.decoders.kept import KeptOffsets
from analyses.decoders.offsets import by_offset, moved, window_of
from analyses.decoders.read import bits_of, opened, part_of
from analyses.result import Result, Table
from analyses.theme import SERIES, axes, layout

COUNTS = (0, 1, 2, 4, 8, 16, 32)
"""Offsets a layer that are kept, as far as there are more."""
CRITERIA = {
    "magnitude": "largest mean |exp(w) − 1|",
    "nearest": "nearest offsets",
    "random": "random offsets",
}
PARITY = 4
"""Sequences whose logits are compared."""


@dataclass(frozen=True)
class OffsetRung:
    """A decoder with k offsets a layer."""

    k: int
    criterion: str
    change: Change
    """Of bits a symbol, to the whole decoder, on the same windows."""
    parity: float
    """Largest |Δlogit| between w = 0 elsewhere and the form that computes the k offsets alone."""


@dataclass(frozen=True)
class OffsetLadder(Result):
    """Bits by offsets kept."""

    name = "offset_ladder"

    source: str
    data: str
    unit: str
    window: int
    bits: Bits
    """Of the whole decoder."""
    rungs: Sequence[OffsetRung]
    seed: int
    """Of the random offsets."""

    def record(self) -> dict[str, Any]:
        """Every rung."""
        return {
            "source": self.source, "data": self.data, "unit": self.unit, "window": self.window, "seed": self.seed,
            "bits": self.bits.mean, "interval": self.bits.interval, "symbols": self.bits.symbols,
            "context": self.bits.context, "criteria": CRITERIA, "max_abs_logit_difference": self.parity,
            "rungs": self.rungs,
        }  # fmt: skip

    @property
    def parity(self) -> float:
        """Largest |Δlogit| of all rungs."""
        return max(rung.parity for rung in self.rungs)

    def table(self) -> Table:
        """A k a row, a criterion a column."""
        found = {(rung.k, rung.criterion): rung for rung in self.rungs}
        ks = list(dict.fromkeys(rung.k for rung in self.rungs))
        rows = [
            [str(k), *(str(found[k, name].change) for name in CRITERIA),
             f"{max(found[k, name].parity for name in CRITERIA):.1e}"]
            for k in ks
        ]  # fmt: skip
        columns = ("k", *(f"{name}: Δ bits/{self.unit}" for name in CRITERIA), "max |Δlogit| to masked")
        title = (
            f"{self.source} on {self.bits.symbols:,} symbols of {self.data}: {self.bits.mean:.4f} bits/{self.unit} "
            f"with all {self.window} offsets"
        )
        return Table(columns, rows, title, self.bits.context, words=0)

    def plot(self, figure: Figure | SubFigure) -> None:
        """Change of bits against k, a criterion a line."""
        axis = figure.subplots()
        for color, (name, words) in zip(SERIES, CRITERIA.items(), strict=False):
            ks, means, lows, highs = self._line(name)
            axis.plot(ks, means, "o-", color=color, label=words, ms=4)
            axis.fill_between(ks, lows, highs, color=color, alpha=0.2, lw=0)
        axis.axhline(0, color="#888888", lw=0.8)
        axis.set_xscale("symlog", base=2)
        axis.set_xlabel("offsets kept in each layer")
        axis.set_ylabel(f"Δ bits/{self.unit}")
        axis.legend(fontsize=8)

    def interactive(self) -> go.Figure:
        """The same with the values under the pointer."""
        figure = go.Figure()
        for color, (name, words) in zip(SERIES, CRITERIA.items(), strict=False):
            ks, means, _, highs = self._line(name)
            errors = [high - mean for high, mean in zip(highs, means, strict=True)]
            figure.add_scatter(
                x=[str(k) for k in ks], y=means, name=words, error_y={"array": errors}, mode="lines+markers",
                line={"color": color},
            )  # fmt: skip
        figure.update_xaxes(title="offsets kept in each layer", type="category")
        figure.update_yaxes(title=f"Δ bits/{self.unit}, and 95 % interval")
        return layout(axes(figure), height=380)

    def _line(self, criterion: str) -> tuple[list[int], list[float], list[float], list[float]]:
        own = [rung for rung in self.rungs if rung.criterion == criterion]
        ends = [rung.change.interval for rung in own]
        return ([rung.k for rung in own], [rung.change.mean for rung in own], [low for low, _ in ends],
                [high for _, high in ends])  # fmt: skip


@torch.no_grad()
def prune_offsets(
    loaded: DecoderCheckpoint, split: Pixels | Stream, *, windows: int = 200, data: str = "", unit: str = "symbol",
    seed: int = 0,
) -> OffsetLadder:  # fmt: skip
    """Keep k offsets of each layer, by each criterion, and measure bits and parity.

    Raises ValueError for a mixer without position biases.
    """
    model, w = loaded.model, by_offset(loaded.model)
    window = window_of(model)
    draws = torch.Generator().manual_seed(seed)
    order = {
        "magnitude": [moved(each).argsort(descending=True, stable=True).cpu() for each in w],
        "nearest": [torch.arange(window) for _ in w],
        "random": [torch.randperm(window, generator=draws) for _ in w],
    }
    with kept_offsets(model, [torch.ones(window, dtype=torch.bool)] * len(w)):
        before = bits_of(loaded, split, windows)
    some = next(split.to(model.pos_embed.device).windows(PARITY)).symbols[:, :-1]
    rungs = []
    for k in (count for count in COUNTS if count < window):
        for criterion, places in order.items():
            chosen = [each[:k].sort().values for each in places]
            masks = [torch.zeros(window, dtype=torch.bool).index_fill_(0, each, True) for each in chosen]
            with kept_offsets(model, masks):
                after, masked = bits_of(loaded, split, windows), model(some)
            compact = compacted(model, w, chosen)(some)
            difference = float((compact - masked).abs().max())
            rungs.append(OffsetRung(k, criterion, change(before, after), difference))
    return OffsetLadder(loaded.path.name, data, unit, window, before, rungs, seed)


def compacted(model: Decoder, w: Sequence[Tensor], offsets: Sequence[Tensor]) -> Decoder:
    """A copy of a decoder whose layers compute with these offsets alone."""
    made = copy.deepcopy(model)
    blocks: list[Any] = list(made.blocks)
    for block, each, chosen in zip(blocks, w, offsets, strict=True):
        block.mixer = KeptOffsets(block.mixer, each[:, chosen.to(each.device)], chosen)
    return made.eval()


def of_checkpoint(
    checkpoint: Path, *, windows: int, split: str, data: str | None, root: str | None, seed: int, device: str, **_: Any
) -> OffsetLadder:
    """`prune_offsets` of a checkpoint on its own data, or other data that fits."""
    loaded, source = opened(checkpoint, data, root, device)
    return prune_offsets(loaded, part_of(source, split), windows=windows, data=source.name, unit=source.unit, seed=seed)
