"""w of a decoder by layer and offset: previous channel, pixel and row; in text, symbols back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from matplotlib.figure import Figure, SubFigure
from plotly.subplots import make_subplots

from aft_lens.checkpoint import DecoderCheckpoint, load_decoder
from analyses import theme
from analyses.decoders.offsets import by_offset, moved, pictured, words
from analyses.result import Result, Table

STRONGEST = 4
"""Offsets of a layer that the table names."""


@dataclass(frozen=True)
class OffsetBiases(Result):
    """w by layer and offset, over the targets that have a source there."""

    name = "offsets"

    source: str
    grid: tuple[int, ...]
    mean: Float[np.ndarray, "layer s"]
    """exp(w) - 1, averaged over targets."""
    moved: Float[np.ndarray, "layer s"]
    """|exp(w) - 1|, averaged over targets: also of what is up here and down there."""

    @property
    def size(self) -> tuple[float, float]:  # type: ignore[override]
        """A panel a layer."""
        return (2.0 * len(self.mean) + 0.6, 2.0) if self.grid else (8.0, 0.4 * len(self.mean) + 1.2)

    def record(self) -> dict[str, Any]:
        """Both maps."""
        return {"source": self.source, "grid": self.grid, "window": self.mean.shape[1], "mean": self.mean,
                "moved": self.moved}  # fmt: skip

    def strongest(self, layer: int, count: int = STRONGEST) -> list[int]:
        """The offsets that move most, the first one first."""
        return np.argsort(-self.moved[layer], kind="stable")[:count].tolist()

    def near(self, layer: int) -> float:
        """Mean offset, in symbols, by how far each moves."""
        return float((self.moved[layer] * np.arange(self.moved.shape[1])).sum() / self.moved[layer].sum())

    def table(self) -> Table:
        """A layer a row."""
        rows = [
            [str(layer), f"{self.near(layer):.1f}", f"{self.moved[layer].max():.3g}",
             "; ".join(f"{words(o, self.grid)} {self.mean[layer, o]:+.2f}" for o in self.strongest(layer))]
            for layer in range(len(self.mean))
        ]  # fmt: skip
        columns = ("layer", "mean offset", "max |exp(w) - 1|", "strongest offsets, with exp(w) - 1")
        return Table(columns, rows, f"{self.source}: w by offset, {self.mean.shape[1]} symbols back")

    def plot(self, figure: Figure | SubFigure) -> None:
        """A window a layer; the target is in the last row, or at the right of a line of text."""
        limit = float(np.abs(self.mean).max()) or 1.0
        shape = (1, len(self.mean)) if self.grid else (len(self.mean), 1)
        shown = None
        for layer, axis in enumerate(np.ravel(figure.subplots(*shape))):
            image = pictured(self.mean[layer], self.grid)
            shown = axis.imshow(image, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="equal" if self.grid else "auto")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_title(f"layer {layer}", fontsize=8) if self.grid else axis.set_ylabel(str(layer), fontsize=8)
        if shown is not None:
            figure.colorbar(shown, ax=figure.axes, label="exp(w) − 1", shrink=0.8)

    def interactive(self) -> go.Figure:
        """The same with offsets in words under the pointer."""
        layers = len(self.mean)
        figure = make_subplots(layers, 1, subplot_titles=[f"layer {layer}" for layer in range(layers)])
        low, high = float(self.mean.min()), float(self.mean.max())  # exp(w) - 1 is above -1, and may be in the hundreds
        room = 0.05 * max(high - low, 0.1)
        labels = [words(offset, self.grid) for offset in range(self.mean.shape[1])]
        for layer in range(layers):
            figure.add_bar(
                x=list(range(len(labels))), y=self.mean[layer], customdata=labels, row=layer + 1, col=1,
                marker_color=theme.SERIES[0], showlegend=False,
                hovertemplate="%{customdata}: exp(w) − 1 = <b>%{y:.3f}</b><extra></extra>",
            )  # fmt: skip
        figure.update_yaxes(range=[min(low, 0.0) - room, max(high, 0.0) + room])
        figure.update_xaxes(title="offset, symbols back", row=layers, col=1)
        margin = {"l": 60, "r": 16, "t": 32, "b": 44}  # room for the first title
        return theme.layout(theme.axes(figure), height=90 * layers + 106, margin=margin)


@torch.no_grad()
def offset_biases(loaded: DecoderCheckpoint) -> OffsetBiases:
    """w of a decoder by layer and offset. Raises ValueError for a mixer without position biases."""
    mean, move = [], []
    for w in by_offset(loaded.model):
        targets, offsets = (torch.arange(size, device=w.device) for size in w.shape)
        there = targets.unsqueeze(1) >= offsets
        mean.append(((torch.expm1(w) * there).sum(0) / there.sum(0).clamp(min=1)).cpu().numpy())
        move.append(moved(w).cpu().numpy())
    return OffsetBiases(loaded.path.name, tuple(loaded.data.get("grid") or ()), np.stack(mean), np.stack(move))


def of_checkpoint(checkpoint: Path, **_: Any) -> OffsetBiases:
    """`offset_biases` of a checkpoint."""
    return offset_biases(load_decoder(checkpoint))


def totals(maps: OffsetBiases, parts: Mapping[str, Sequence[int]]) -> dict[str, list[float]]:
    """Share of all movement that each group of offsets has, by layer."""
    whole = maps.moved.sum(1)
    return {name: (maps.moved[:, list(offsets)].sum(1) / whole).tolist() for name, offsets in parts.items()}
