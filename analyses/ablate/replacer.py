"""Heads replaced inside a forward pass."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from aft_lens.extraction import AttentionReader, unfold_offsets
from analyses.ablate.calibration import Calibration, neighbours
from analyses.ablate.rung import Rung
from analyses.explain.causal import Head
from analyses.explain.position import FLOOR, HeadPositions

Edits = Mapping[Head, Rung]
"""What is replaced, by (layer, head)."""


def kept(positions: HeadPositions, rung: Rung, layer: int, seed: int = 0) -> Float[Tensor, "head dy dx"]:
    """The maps of a layer with the offsets that a rung keeps, and 0 elsewhere.

    "offsets": the strongest. "rank": one, of that rank by strength. "centre": those nearest to the target, ties in
    raster order. "random": drawn by `seed`, anew for each head; a smaller number of them are the first of a larger one.
    """
    m = positions.maps[layer]
    heads, rows, columns = m.shape
    if rung.kind in ("offsets", "rank"):
        score = m.flatten(1)
    elif rung.kind == "centre":
        place = torch.meshgrid(*(torch.arange(side) - side // 2 for side in (rows, columns)), indexing="ij")
        score = -torch.stack(place).double().norm(dim=0).flatten().expand(heads, -1)
    else:
        generator = torch.Generator().manual_seed(seed * 1000 + layer)
        score = torch.rand(heads, rows * columns, generator=generator, dtype=torch.float64)
    first = rung.offsets - 1 if rung.kind == "rank" else 0
    chosen = score.argsort(dim=1, descending=True, stable=True)[:, first : rung.offsets]
    return torch.zeros_like(m).flatten(1).scatter(1, chosen, m.flatten(1).gather(1, chosen)).reshape(m.shape)


def matrices(positions: HeadPositions, rung: Rung, layer: int, seed: int = 0) -> Float[Tensor, "head t s"]:
    """Attention of a layer's heads that no image changes, prefix tokens first, rows summing to 1.

    A patch gives each prefix token its mean share, and the rest to patches as the rung's offsets say, in the
    proportions of the map; where the grid has none of them it reads all patches alike. A prefix token has no place on
    the grid: as target it gets its mean row.
    """
    if rung.kind in ("map", "uniform"):
        return positions.replaced(rung.kind, layer, 1)
    floor = FLOOR / (positions.grid[0] * positions.grid[1])
    pairs = unfold_offsets(kept(positions, rung, layer, seed).clamp(min=floor), positions.grid)
    return positions.whole(layer, pairs / pairs.sum(-1, keepdim=True))


class Replacer:
    """What replaces heads, made once and kept."""

    def __init__(self, reader: AttentionReader, calibration: Calibration, seed: int = 0) -> None:
        self.reader, self.calibration, self.seed = reader, calibration, seed
        self.device = next(reader.model.parameters()).device
        self._matrices: dict[tuple[Rung, int], Tensor] = {}

    @contextmanager
    def replaced(self, edits: Edits, first: int = 0) -> Iterator[None]:
        """Inside the block the heads of `edits` read what their rungs say; `first` is the number of the first image."""
        layers: dict[int, dict[Rung, list[int]]] = {}
        for (layer, head), rung in sorted(edits.items()):
            layers.setdefault(layer, {}).setdefault(rung, []).append(head)

        def change(layer: int, x: Tensor, attention: Tensor) -> Tensor | None:
            if layer not in layers:
                return None
            values = self.reader.values(layer, x)
            read = attention.to(values.dtype) @ values
            for rung, heads in layers[layer].items():
                read[:, heads] = self.read(rung, layer, heads, values[:, heads], attention[:, heads], first)
            return read.transpose(1, 2).flatten(2)

        with self.reader.remixed(change):
            yield

    def read(
        self, rung: Rung, layer: int, heads: list[int], values: Float[Tensor, "b h s c"],
        attention: Float[Tensor, "b h t s"], first: int,
    ) -> Float[Tensor, "b h t c"]:  # fmt: skip
        """What some heads of a layer read by a rung."""
        found, p = self.calibration, self.reader.prefix
        if rung.kind == "attention":
            return attention.to(values.dtype) @ values
        if rung.kind == "zero":
            return torch.zeros_like(values)
        if rung.kind == "mean":
            mean = found.mean[layer, heads].to(values)
            return torch.cat([mean[:, :p], mean[:, p:].expand(-1, values.shape[2] - p, -1)], 1).expand_as(values)
        if rung.kind == "resample":
            generator = torch.Generator().manual_seed(self.seed)
            drawn = torch.randint(found.bank.shape[1], (first + len(values),), generator=generator)[first:]
            return found.bank[layer][drawn][:, heads].to(values)
        if rung.kind == "kernel":
            return self._convolved(layer, heads, values)
        return self.matrices(rung, layer)[heads].to(values) @ values

    def matrices(self, rung: Rung, layer: int) -> Float[Tensor, "head t s"]:
        """As the function, in float32 on the model's device."""
        key = rung, layer
        if key not in self._matrices:
            self._matrices[key] = (
                matrices(self.calibration.positions, rung, layer, self.seed).float().to(self.device)
            )  # fmt: skip
        return self._matrices[key]

    def _convolved(self, layer: int, heads: list[int], values: Tensor) -> Tensor:
        """Patches by their kernels beside the mean share of the prefix tokens; these by their mean rows."""
        positions, p = self.calibration.positions, self.reader.prefix
        kernel = self.calibration.kernel[layer, heads].to(values)
        columns = positions.columns[layer, heads].to(values)
        patches = torch.einsum("bhsck,hck->bhsc", neighbours(values[:, :, p:], positions.grid), kernel[..., :-1])
        patches = (
            patches + kernel[..., -1][:, None] + torch.einsum("hp,bhpc->bhc", columns, values[:, :, :p])[:, :, None]
        )
        return torch.cat([positions.rows[layer, heads].to(values) @ values, patches], 2)


def same(heads: Iterable[Head], rung: Rung) -> dict[Head, Rung]:
    """The edits of heads that all get one rung."""
    return dict.fromkeys(heads, rung)
