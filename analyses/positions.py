"""Figures of the positions that a model has built in: relative-position biases and ConViT's gated positions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from aft_lens.extraction import PositionMap
from analyses.figures import rounded, save_mosaic, table


@dataclass(frozen=True)
class PositionFigures:
    """A model's positions by layer and head, in the frame of relative attention."""

    layers: Sequence[PositionMap]
    source: str = "model"

    @property
    def groups(self) -> list[list[PositionMap]]:
        """Layers that fit one mosaic: neighbours of the same kind, heads and window (Swin: a stage each)."""
        groups: list[list[PositionMap]] = []
        for layer in self.layers:
            if not groups or (groups[-1][0].kind, groups[-1][0].maps.shape) != (layer.kind, layer.maps.shape):
                groups.append([])
            groups[-1].append(layer)
        return groups

    def summary(self) -> str:
        """A line a layer: its window, heads, the offset they favour on average, and ConViT's gates."""
        rows = []
        for layer in self.layers:
            heads, rows_, columns = layer.maps.shape
            y, x = np.unravel_index(int(layer.maps.mean(0).argmax()), (rows_, columns))
            gate = "-" if layer.gate is None else f"{layer.gate.mean():.2f}"
            window = f"{(rows_ + 1) // 2} x {(columns + 1) // 2}"
            rows.append([layer.layer, layer.kind, window, str(heads), f"{y - rows_ // 2}, {x - columns // 2}", gate])
        header = ["layer", "kind", "window", "heads", "peak of the mean (dy, dx)", "mean gate"]
        return f"{self.source}: positions of {len(self.layers)} layers\n{table(header, rows)}"

    def save(self, out: Path, *, line: str | None = None) -> list[Path]:
        """Write positions.json, .png, .svg and .html; numbered where layers differ in heads or window."""
        groups, paths = self.groups, []
        for number, group in enumerate(groups):
            name = "positions" if len(groups) == 1 else f"positions-{number}"
            gated = group[0].kind == "gated"
            record = {
                "source": self.source,
                "command": line,
                "kind": group[0].kind,
                "layers": [layer.layer for layer in group],
                "gate": [None if layer.gate is None else rounded(layer.gate.numpy()) for layer in group],
            }
            maps = np.stack([_shown(layer.maps, gated) for layer in group])
            paths += save_mosaic(
                maps, out, name, title="Gated positions" if gated else "Relative-position biases",
                unit="n × attention − 1" if gated else "bias − mean (nats)", record=record,
            )  # fmt: skip
        return paths


def _shown(maps: Tensor, gated: bool) -> np.ndarray:
    """A gated map relative to a uniform share; a bias about its mean, which the softmax does not see."""
    if gated:
        area = (maps.shape[1] + 1) // 2 * ((maps.shape[2] + 1) // 2)
        return (maps * area - 1).numpy()
    return (maps - maps.mean((1, 2), keepdim=True)).numpy()
