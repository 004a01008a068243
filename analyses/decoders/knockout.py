"""What offsets are worth: bits a symbol more where w of some of them is 0, in all layers or in one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import torch
from matplotlib.figure import Figure, SubFigure

from aft_lens.checkpoint import DecoderCheckpoint
from aft_lens.data.sequences import Pixels, Stream
from aft_lens.training.bits import Bits, Change, change
from analyses.decoders.edits import kept_offsets
from analyses.decoders.offsets import groups, window_of
from analyses.decoders.read import bits_of, opened, part_of
from analyses.result import Result, Table
from analyses.theme import axes, layout


@dataclass(frozen=True)
class Knock:
    """w = 0 at some offsets."""

    words: str
    layer: int | None
    """None: all layers."""
    offsets: tuple[int, ...]
    change: Change


@dataclass(frozen=True)
class OffsetKnockout(Result):
    """Bits of a decoder without some of its offsets, paired by image or window."""

    name = "knockout"

    source: str
    data: str
    unit: str
    bits: Bits
    """Of the intact decoder."""
    knocks: Sequence[Knock]

    @property
    def size(self) -> tuple[float, float]:  # type: ignore[override]
        """As high as there are knock-outs."""
        return 7.5, 1.2 + 0.28 * len(self.knocks)

    def record(self) -> dict[str, Any]:
        """Every knock-out with its paired interval."""
        return {
            "source": self.source, "data": self.data, "unit": self.unit, "bits": self.bits.mean,
            "interval": self.bits.interval, "symbols": self.bits.symbols, "context": self.bits.context,
            "knocks": self.knocks,
        }  # fmt: skip

    def table(self) -> Table:
        """A knock-out a row."""
        rows = [[knock.words, _where(knock), str(len(knock.offsets)), str(knock.change)] for knock in self.knocks]
        low, high = self.bits.interval
        title = (
            f"{self.source} on {self.bits.symbols:,} symbols of {self.data}: {self.bits.mean:.4f} [{low:.4f}, "
            f"{high:.4f}] bits/{self.unit}; changes are paired"
        )
        columns = ("w = 0 at", "layers", "offsets", f"Δ bits/{self.unit} [95 %]")
        return Table(columns, rows, title, self.bits.context, words=2)

    def plot(self, figure: Figure | SubFigure) -> None:
        """Change of bits with its interval, a knock-out a row."""
        axis = figure.subplots()
        for place, knock in enumerate(self.knocks):
            axis.plot(knock.change.interval, [place] * 2, color="#2f6db3", lw=1.6)
            axis.plot(knock.change.mean, place, "o", color="#2f6db3", ms=4)
        axis.axvline(0, color="#888888", lw=0.8)
        axis.set_yticks(range(len(self.knocks)), [f"{k.words}, {_where(k)}" for k in self.knocks], fontsize=7)
        axis.set_ylim(len(self.knocks) - 0.5, -0.5)
        axis.set_xlabel(f"Δ bits/{self.unit} from {self.bits.mean:.3f}, and 95 % interval")

    def interactive(self) -> go.Figure:
        """The same with the values under the pointer."""
        changes = [knock.change for knock in self.knocks]
        figure = go.Figure(
            go.Scatter(
                x=[each.mean for each in changes], y=[f"{k.words}, {_where(k)}" for k in self.knocks], mode="markers",
                error_x={"array": [each.interval[1] - each.mean for each in changes]},
                customdata=[str(each) for each in changes], hovertemplate="%{y}: %{customdata} bits",
            )
        )  # fmt: skip
        figure.update_yaxes(autorange="reversed")
        figure.update_xaxes(title=f"Δ bits/{self.unit}, and 95 % interval")
        return layout(axes(figure), height=120 + 24 * len(changes))


def knock_out(
    loaded: DecoderCheckpoint, split: Pixels | Stream, *, windows: int = 200, data: str = "", unit: str = "symbol"
) -> OffsetKnockout:
    """Set w to 0 at all offsets, at each group of them, and at all of each layer; the rest stays as it is.

    Raises ValueError for a mixer without position biases.
    """
    model = loaded.model
    window, layers, grid = window_of(model), len(model.blocks), tuple(loaded.data.get("grid") or ())
    whole = tuple(range(window))
    todo: list[tuple[str, int | None, tuple[int, ...]]] = [("all", None, whole)]
    todo += [(words, None, tuple(offsets)) for words, offsets in groups(window, grid).items()]
    todo += [("all", layer, whole) for layer in range(layers)]
    with kept_offsets(model, [torch.ones(window, dtype=torch.bool)] * layers):  # in the form of those that are cut
        before = bits_of(loaded, split, windows)
    knocks = []
    for words, layer, offsets in todo:
        keep = [torch.ones(window, dtype=torch.bool) for _ in range(layers)]
        for number in range(layers) if layer is None else [layer]:
            keep[number][list(offsets)] = False
        with kept_offsets(model, keep):
            knocks.append(Knock(words, layer, offsets, change(before, bits_of(loaded, split, windows))))
    return OffsetKnockout(loaded.path.name, data, unit, before, knocks)


def of_checkpoint(
    checkpoint: Path, *, windows: int, split: str, data: str | None, root: str | None, device: str, **_: Any
) -> OffsetKnockout:
    """`knock_out` of a checkpoint on its own data, or other data that fits."""
    loaded, source = opened(checkpoint, data, root, device)
    return knock_out(loaded, part_of(source, split), windows=windows, data=source.name, unit=source.unit)


def _where(knock: Knock) -> str:
    return "all" if knock.layer is None else f"layer {knock.layer}"
