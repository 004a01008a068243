"""The logits Q K' of every head over images, split into what places and what contents of targets and sources give.

After the first stage of bi-orthogonal factor decomposition (Doshi et al. 2026, arXiv 2601.05328), an analysis of
variance of tokens over images and places: a query is q_it = q + q_t + q_it', its mean, what its place t adds on average
over images i, and the rest, its content; a key likewise. The logits are then, exactly,

    (q + q_t + q_it') . (k + k_s + k_is').

Softmax over sources is blind to what is the same for all sources, so the logits are centred over them: k is gone, and
six parts are left. Each part's share is its covariance with the whole over the variance of the whole, over sources,
targets and images: shares sum to 1, and one may be below 0. Places are averaged over the other half of the images, so
that the content of an image is no part of what its places are taken for.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from aft_lens.extraction import AttentionReader, fold_offsets, targets_per_offset, unfold_offsets
from aft_lens.progress import progress as bar
from aft_lens.statistics import percentile_interval

PARTS = ("all, place", "all, content", "place, place", "place, content", "content, place", "content, content")
"""Of the query (what all queries share, the target's place, its content), then of the key (the source's)."""
GROUPS = {"position": (0, 2), "mixed": (3, 4), "content": (1, 5)}
"""Parts by what they rest on: on places alone, so that no image changes them; on the place of one token and the content
of the other; on contents alone."""
DRAWS = 400
"""Bootstrap samples of the images."""
ROUNDS = 50
"""Of fitting offsets and targets in turn."""
TOLERANCE = 1e-4
"""Largest difference of attention from softmax(Q K')."""


@dataclass(frozen=True)
class Parts:
    """What each part of the logits of every head carries."""

    covariance: Float[np.ndarray, "image layer head part"]
    """Of the part with the whole, mean over sources and targets, squared nats; parts in the order of `PARTS`."""
    offsets: Float[np.ndarray, "layer head"]
    """Of the mean logits of places (the two parts of "position"): the share of their variance that a function of offset
    and one of the target explain by least squares; NaN where they are constant."""

    @property
    def shares(self) -> Float[np.ndarray, "layer head part"]:
        """Of each part in the variance of the logits over sources; they sum to 1."""
        return _shares(self.covariance.sum(0))

    @property
    def variance(self) -> Float[np.ndarray, "layer head"]:
        """Of the logits over sources, squared nats."""
        return self.covariance.sum(-1).mean(0)

    def group(self, name: str) -> Float[np.ndarray, "layer head"]:
        """Share of a group of parts, by its name in `GROUPS`."""
        return self.shares[..., GROUPS[name]].sum(-1)

    def intervals(self, name: str, *, seed: int = 0) -> Float[np.ndarray, "2 layer head"]:
        """95 % of a group's share: percentiles over bootstrap samples of the images, places taken as they are."""
        count = len(self.covariance)
        drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), DRAWS)
        return percentile_interval(_shares(np.tensordot(drawn, self.covariance, 1))[..., GROUPS[name]].sum(-1))


def _shares(covariance: Float[np.ndarray, "*some part"]) -> Float[np.ndarray, "*some part"]:
    whole = covariance.sum(-1, keepdims=True)
    return np.divide(covariance, whole, out=np.full(covariance.shape, np.nan), where=whole > 0)


@torch.no_grad()
def split_logits(
    reader: AttentionReader, batches: Iterable[Tensor | Sequence[Any]], *, progress: bool = False
) -> Parts:
    """Split the logits of patches over patches, in two passes over the images; memory grows with their number alone.

    Raises ValueError on fewer than four images, on attention that is not softmax(Q K') (relative biases, rotations that
    the adapter does not read), and as `AttentionReader.queries_keys` does.
    """
    given = [batch if isinstance(batch, Tensor) else batch[0] for batch in batches]
    if sum(map(len, given)) < 4:
        raise ValueError(f"images must be 4 or more, two for each half's places, got {sum(map(len, given))}")
    device = next(reader.model.parameters()).device
    _check(reader, given[0][:2].to(device))
    depth, p = len(reader.layers), reader.prefix
    sums: dict[tuple[int, int], list[Tensor]] = {}
    counts = [0, 0]

    def each(words: str, take: Callable[[int, Tensor, Tensor, Tensor], None]) -> None:
        """Call `take` for every layer of every batch with its patches' queries and keys, and each image's half."""
        first = 0
        for images in bar(given, words, shown=progress):
            half = (torch.arange(len(images), device=device) + first) % 2
            first += len(images)

            def read(layer: int, x: Tensor, half: Tensor = half) -> None:
                query, key = reader.queries_keys(layer, x)
                take(layer, query[:, :, p:].float(), key[:, :, p:].float(), half)

            with reader.inputs(read):
                reader.logits(images.to(device))

    def add(layer: int, query: Tensor, key: Tensor, half: Tensor) -> None:
        for number in (0, 1):
            own = half == number
            counts[number] += int(own.sum()) if layer == 0 else 0
            total = [query[own].sum(0, dtype=torch.float64), key[own].sum(0, dtype=torch.float64)]
            before = sums.get((layer, number))
            sums[layer, number] = total if before is None else [a + b for a, b in zip(before, total)]

    found: dict[int, list[np.ndarray]] = {layer: [] for layer in range(depth)}

    def covary(layer: int, query: Tensor, key: Tensor, half: Tensor) -> None:
        means = [torch.stack([sums[layer, 1 - n][i] / counts[1 - n] for n in (0, 1)])[half].float() for i in (0, 1)]
        found[layer].append(_covariance(query, key, *means).cpu().numpy())

    each("places of queries and keys", add)
    each("parts of the logits", covary)
    means = [[(a + b) / sum(counts) for a, b in zip(sums[layer, 0], sums[layer, 1])] for layer in range(depth)]
    offsets = np.stack([_offset_share(query, key, reader.grid) for query, key in means])
    return Parts(np.stack([np.concatenate(found[layer]) for layer in range(depth)], 1), offsets)


def _covariance(
    query: Float[Tensor, "b h n c"], key: Float[Tensor, "b h n c"], queries: Float[Tensor, "b h n c"],
    keys: Float[Tensor, "b h n c"],
) -> Float[Tensor, "b h part"]:  # fmt: skip
    """Of each part with the whole, by image, in float64; the last two are means over images by place.

    sum_ts (a_t . u_s)(q_t . k_s) is the sum of the entries of (sum_t a_t q_t') o (sum_s u_s k_s'), c x c each.
    """
    shared = queries.mean(2, keepdim=True)
    targets = (shared.expand_as(query), queries - shared, query - queries)
    centred = key - key.mean(2, keepdim=True)
    place = keys - keys.mean(2, keepdim=True)
    left = [(one.mT @ query).double() for one in targets]
    right = [(one.mT @ centred).double() for one in (place, centred - place)]
    return torch.stack([(a * u).sum((2, 3)) for a in left for u in right], -1) / query.shape[2] ** 2


def _offset_share(
    query: Float[Tensor, "h n c"], key: Float[Tensor, "h n c"], grid: tuple[int, int]
) -> Float[np.ndarray, "h"]:
    """Share of the variance of mean logits that r(s - t) and a constant for each target explain, by least squares."""
    logits = query @ (key - key.mean(1, keepdim=True)).mT
    targets = targets_per_offset(grid, logits.device)
    level = torch.zeros_like(logits[..., :1])
    fitted = torch.zeros_like(logits)
    for _ in range(ROUNDS):
        fitted = unfold_offsets(fold_offsets(logits - level, grid) / targets, grid)
        level = (logits - fitted).mean(-1, keepdim=True)
    centred = (logits - logits.mean(-1, keepdim=True)).square().sum((1, 2))
    left = (logits - fitted - level).square().sum((1, 2))
    return (1 - left / centred).where(centred > 0, torch.nan).cpu().numpy()


def _check(reader: AttentionReader, images: Tensor) -> None:
    """ValueError unless the model's attention is softmax(Q K')."""
    inputs: dict[int, Tensor] = {}
    weights: dict[int, Tensor] = {}
    with reader.inputs(inputs.__setitem__), reader.exposed(weights.__setitem__):
        reader.logits(images)
    for layer in range(len(reader.layers)):
        query, key = reader.queries_keys(layer, inputs[layer])
        error = float(((query @ key.mT).softmax(-1) - weights[layer]).abs().max())
        if not error <= TOLERANCE:
            raise ValueError(
                f"{reader.source}: attention of layer {layer} differs from softmax(QK') by {error:.2g}: there is more "
                "in its logits (relative biases, rotations); `aft-lens explain` reads its attention"
            )
