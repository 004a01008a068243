"""Positions that a model has built in, as a result: relative-position biases, and ConViT's gated positions."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from aft_lens.extraction import PositionMap
from analyses.maps.head_maps import HeadMaps
from analyses.maps.result import MapResult
from analyses.result import Table


@dataclass(frozen=True)
class BuiltInPositions(MapResult):
    """Layers of one kind, number of heads and window, by head in the frame of relative attention."""

    layers: Sequence[PositionMap]
    source: str = "model"

    name = "positions"

    @property
    def gated(self) -> bool:
        """Whether the maps are attention that gates mix in (ConViT), not biases of logits."""
        return self.layers[0].kind == "gated"

    @property
    def title(self) -> str:  # type: ignore[override]
        """Says of which kind they are."""
        return "Gated positions" if self.gated else "Relative-position biases"

    def head_maps(self, label: str = "") -> HeadMaps:
        """A gated map relative to a uniform share; a bias about its mean, which the softmax does not see."""
        maps = np.stack([layer.maps.numpy() for layer in self.layers])
        if self.gated:
            area = (maps.shape[2] + 1) // 2 * ((maps.shape[3] + 1) // 2)
            return HeadMaps(maps * area - 1, "n × attention − 1", label=label or self.source)
        return HeadMaps(maps - maps.mean((2, 3), keepdims=True), "bias − mean (nats)", label=label or self.source)

    def record(self) -> dict[str, Any]:
        """The maps as they are drawn, and ConViT's gates."""
        return {
            "source": self.source,
            "kind": self.layers[0].kind,
            "layers": [layer.layer for layer in self.layers],
            "gate": [layer.gate for layer in self.layers],
            "maps": self.head_maps().values,
        }

    def table(self) -> Table:
        """A row a layer: its window, heads, the offset they favour on average, and ConViT's gates."""
        rows = []
        for layer in self.layers:
            heads, rows_, columns = layer.maps.shape
            y, x = np.unravel_index(int(layer.maps.mean(0).argmax()), (rows_, columns))
            gate = "-" if layer.gate is None else f"{layer.gate.mean():.2f}"
            window = f"{(rows_ + 1) // 2} x {(columns + 1) // 2}"
            rows.append([layer.layer, layer.kind, window, str(heads), f"{y - rows_ // 2}, {x - columns // 2}", gate])
        columns_ = ["layer", "kind", "window", "heads", "peak of the mean (dy, dx)", "mean gate"]
        return Table(columns_, rows, f"{self.source}: positions of {len(self.layers)} layers")


def built_in_positions(layers: Sequence[PositionMap], source: str = "model") -> tuple[BuiltInPositions, ...]:
    """A result for each run of neighbours of the same kind, heads and window (Swin: one a stage)."""
    alike = groupby(layers, lambda layer: (layer.kind, layer.maps.shape))
    return tuple(BuiltInPositions(tuple(group), source) for _, group in alike)
