"""One pass over images: sums by groups of images, of which every finding and its interval is made."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from aft_lens.extraction import AttentionReader, entering, fold_offsets, targets_per_offset
from aft_lens.progress import progress as bar

VERIFIED_IMAGES = 2
"""Images of the first batch on which the extraction is checked against the model's own outputs."""
LARGE = 3.0
"""Times the median norm of an image's patches from which on a patch is an outlier."""
FIELDS = ("folded", "square", "entropy", "prefix", "column", "outliers", "to_outliers", "norms")
"""Of `Sums`, that a group fills layer by layer."""
PARTS = 8
"""Parts of the images whose tokens are summed apart, for the interval of what place explains of them."""


@dataclass(frozen=True)
class Sums:
    """What a ViT did over g groups of images; p prefix tokens, n patches. Attention of patch targets to patches is
    renormalised without the prefix tokens, but in `prefix`."""

    images: Float[np.ndarray, "g"]
    """Of each group."""
    folded: Float[np.ndarray, "g layer head dy dx"]
    """Attention to patches by offset, summed over images and targets."""
    square: Float[np.ndarray, "g layer head"]
    """Sum of the squares of the attention to patches."""
    entropy: Float[np.ndarray, "g layer head"]
    """Sum over targets of the entropy of the attention to patches, nats."""
    prefix: Float[np.ndarray, "g layer head p"]
    """Attention of patches to each prefix token, summed over targets."""
    column: Float[np.ndarray, "g layer head n"]
    """Attention that each patch gets from patches."""
    outliers: Float[np.ndarray, "g layer_and_1"]
    """Patches whose norm is over `LARGE` times the median of their image, among those that enter each block, and
    those that leave the last; empty where the model has no list of blocks."""
    to_outliers: Float[np.ndarray, "g layer head"]
    """Attention of patches to such patches."""
    norms: Float[np.ndarray, "g layer_and_1 p_and_1"]
    """Sum over images of the norm of each prefix token, and of the largest patch, over the median patch's."""
    placed: Float[np.ndarray, "part layer_and_1"]
    """Share of the tokens' variance over images and places that place explains, each part of the images left out in
    turn, the chance share taken off."""
    grid: tuple[int, int]
    error: float
    """Largest relative error of a block output recomputed from the extracted weights."""

    @property
    def targets(self) -> Float[np.ndarray, "dy dx"]:
        """How many targets of an image have a source at each offset."""
        return targets_per_offset(self.grid).numpy()


@torch.no_grad()
def gather(reader: AttentionReader, batches: Iterable[Tensor | Sequence[Any]], *, progress: bool = False) -> Sums:
    """Run over batches, each of which is a group; memory grows with their number, not with the images.

    Raises ValueError on fewer than two batches, as no interval could be made, and RuntimeError if the weights fail
    verification (`AttentionReader.verify`).
    """
    device = next(reader.model.parameters()).device
    kept = {name: _Kept() for name in ("count", *FIELDS)}
    tokens: dict[int, _Tokens] = {}
    error, depth = 0.0, len(reader.layers)
    for number, batch in enumerate(bar(batches, "scan", shown=progress)):
        images = (batch if isinstance(batch, Tensor) else batch[0]).to(device)
        if number == 0:
            error = reader.verify(images[:VERIFIED_IMAGES])
        group = _Group(reader, len(images))
        with entering(reader, group.enter), reader.exposed(group.add):
            reader.logits(images)
        for layer, hidden in group.patches.items():
            tokens.setdefault(layer, _Tokens()).add(number % PARTS, hidden)
        kept["count"].add(np.array(float(group.count)))
        for name in FIELDS:
            by_layer = getattr(group, name)
            kept[name].add(np.stack([by_layer[layer] for layer in sorted(by_layer)]) if by_layer else np.zeros(0))
    count = kept["count"].count
    if count < 2:
        raise ValueError(f"images must fill two batches or more, for intervals over them, got {count}")
    inner = depth + 1 if tokens else 0
    placed = np.stack([tokens[layer].explained() for layer in range(inner)], 1) if inner else np.zeros((0, 0))
    images, folded, square, entropy, prefix, column, outliers, to_outliers, norms = (kept[name].rows for name in kept)
    return Sums(
        images, folded, square, entropy, prefix, column, outliers, to_outliers, norms, placed, reader.grid, error
    )


class _Kept:
    """An array of every group, in memory that doubles: pieces of each would lie between a pass's large tensors, whose
    memory could not be used again as a whole."""

    def __init__(self) -> None:
        self.count, self._rows = 0, np.zeros(0)

    @property
    def rows(self) -> np.ndarray:
        """Of all groups, one after the other."""
        return self._rows[: self.count]

    def add(self, row: np.ndarray) -> None:
        """One more group's."""
        if self.count == len(self._rows):
            grown = np.empty((max(8, 2 * self.count), *row.shape))
            if self.count:
                grown[: self.count] = self._rows
            self._rows = grown
        self._rows[self.count] = row
        self.count += 1


class _Group:
    """Sums over one batch, by layer."""

    def __init__(self, reader: AttentionReader, count: int) -> None:
        self.count, self.p, self.grid = count, reader.prefix, reader.grid
        self.folded: dict[int, np.ndarray] = {}
        self.square: dict[int, np.ndarray] = {}
        self.entropy: dict[int, np.ndarray] = {}
        self.prefix: dict[int, np.ndarray] = {}
        self.column: dict[int, np.ndarray] = {}
        self.outliers: dict[int, np.ndarray] = {}
        self.to_outliers: dict[int, np.ndarray] = {}
        self.norms: dict[int, np.ndarray] = {}
        self.patches: dict[int, Tensor] = {}
        self.large: dict[int, Tensor] = {}

    def enter(self, layer: int, hidden: Tensor) -> None:
        """What enters a block, `b t d`."""
        hidden = hidden.flatten(1, -2)  # of a hierarchical model `b y x d`
        norm = hidden.float().norm(dim=-1)
        patches = norm[:, self.p :]
        ratio = norm / patches.median(1, keepdim=True).values.clamp(min=torch.finfo(norm.dtype).tiny)
        self.large[layer] = ratio[:, self.p :] > LARGE
        self.outliers[layer] = _numpy(self.large[layer].sum())
        largest = ratio[:, self.p :].amax(1, keepdim=True)
        self.norms[layer] = _numpy(torch.cat([ratio[:, : self.p], largest], 1).sum(0))
        self.patches[layer] = hidden[:, self.p :].float()

    def add(self, layer: int, attention: Tensor) -> None:
        """Weights of a layer, `b h t s`."""
        attention = attention.float()
        self.prefix[layer] = _numpy(attention[:, :, self.p :, : self.p].sum((0, 2)))
        patches = attention[:, :, self.p :, self.p :]
        patches = patches / patches.sum(-1, keepdim=True)
        self.folded[layer] = _numpy(fold_offsets(patches.sum(0), self.grid))
        self.square[layer] = _numpy(patches.square().sum((0, 2, 3)))
        self.entropy[layer] = _numpy(torch.special.entr(patches).sum((0, 2, 3)))
        self.column[layer] = _numpy(patches.sum((0, 2)))
        if layer in self.large:
            got = patches.sum(2)  # b h s
            self.to_outliers[layer] = _numpy((got * self.large[layer][:, None]).sum((0, 2)))


class _Tokens:
    """Sums of one layer's tokens by place, in parts of the images."""

    def __init__(self) -> None:
        self.sums: dict[int, Tensor] = {}
        self.squares = [0.0] * PARTS
        self.counts = [0] * PARTS

    def add(self, part: int, hidden: Float[Tensor, "b n d"]) -> None:
        """A batch of a part."""
        total = hidden.sum(0)
        self.sums[part] = self.sums[part].add_(total) if part in self.sums else total
        self.squares[part] += float(hidden.square().sum(dtype=torch.float64))
        self.counts[part] += len(hidden)

    def explained(self) -> Float[np.ndarray, "part"]:
        """Without each part in turn: variance between places over all variance, less what chance has of it."""
        whole = torch.stack(list(self.sums.values())).sum(0)
        found = []
        for part, own in self.sums.items():
            images = sum(self.counts) - self.counts[part]
            sums, square = whole - own, sum(self.squares) - self.squares[part]
            n = len(sums)
            mean = float(sums.sum(0).square().sum(dtype=torch.float64)) / (images * n)
            between = float(sums.square().sum(dtype=torch.float64)) / images - mean
            within = square - between - mean
            total = between + within
            noise = (n - 1) * within / max(1, n * (images - 1))
            found.append(max(0.0, between - noise) / total if total > 0 else 0.0)
        return np.array(found)


def _numpy(x: Tensor) -> np.ndarray:
    return x.double().cpu().numpy()
