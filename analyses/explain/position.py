"""How much of a head's attention its offsets explain, and the head that knows nothing else."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from aft_lens.extraction import AttentionReader, fold_offsets, targets_per_offset, unfold_offsets
from aft_lens.progress import progress as bar

VERIFIED_IMAGES = 2
"""Images of the first batch on which the extraction is checked against the model's own outputs."""
FLAT = 1e-6
"""Variance (as a fraction of the squared uniform share) or divergence (nats) below which a head is uniform but for
rounding, and there is nothing to explain."""
FLOOR = 1e-12
"""Smallest relative attention, as a fraction of the uniform share, in a replacement: no row sums to 0."""
REPLACEMENTS = ("map", "uniform", "other", "window", "offset")
"""What a head's attention over patches is replaced by; see `HeadPositions.replaced`."""


@dataclass(frozen=True)
class HeadPositions:
    """Every head averaged over images by offset, and how much that explains.

    p(s | t) is the attention of patch target t over the n patches, prefix tokens left out and renormalised, of one
    image; m its border-corrected average by offset: over images and the targets that have the offset.
    """

    maps: Float[Tensor, "layer head dy dx"]
    """m, float64; the uniform share is 1/n."""
    variance: Float[Tensor, "layer head"]
    """1 - sum (p - m)^2 / sum (p - 1/n)^2 over images, targets and sources: the share of the attention's variance
    about the uniform share that offsets explain (the correlation ratio eta^2; m is the least-squares fit by offset).
    In [0, 1]: 0 as for the uniform baseline, 1 for a head that is a function of offset. NaN for a uniform head."""
    divergence: Float[Tensor, "layer head"]
    """1 - mean KL(p || q) / mean KL(p || uniform) with q(s | t) = m(s - t) / sum_s' m(s' - t), the map as
    distribution for each target: the share of the information in a head's attention (nats) that offsets explain. At
    most 1, and 0 as for the uniform baseline; below 0 where the border's renormalisation makes m worse than uniform.
    NaN for a uniform head."""
    information: Float[Tensor, "layer head"]
    """Mean KL(p || uniform) in nats: what there is to explain, in [0, log n]."""
    columns: Float[Tensor, "layer head p"]
    """Mean attention of a patch target to each prefix token; what is left goes to patches."""
    rows: Float[Tensor, "layer head p s"]
    """Mean attention of each prefix token as target, to all tokens, by place."""
    images: int
    grid: tuple[int, int]
    error: float
    """Largest relative error of a block output recomputed from the extracted weights."""

    def tensors(self) -> dict[str, Tensor]:
        """All of it by name, as a file keeps it; see `of_tensors`."""
        return {field.name: torch.as_tensor(getattr(self, field.name)).contiguous() for field in fields(self)}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor]) -> "HeadPositions":
        """From what `tensors` gave."""
        rest = dict(tensors)
        rows, columns = rest.pop("grid").tolist()
        images, error = int(rest.pop("images")), float(rest.pop("error"))
        return cls(**rest, images=images, grid=(rows, columns), error=error)

    def patches(self, kind: str, layer: int, window: int) -> Float[Tensor, "head t s"]:
        """The distribution over patches that replaces p(s | t), the same for every image.

        "map": the head's own q. "uniform": 1/n. "other": q of the next head of the layer (the last one's next is the
        first). "window": q of m within `window` x `window` offsets around the target and 0 beyond. "offset": the one
        source at the largest m, as an AFT of a single position a head reads; 1/n where the grid has none there.
        """
        m = self.maps[layer].clamp(min=FLOOR / self._count)
        if kind == "uniform":
            m = torch.ones_like(m)
        elif kind == "other":
            m = m.roll(-1, 0)
        elif kind == "window":
            near = [(torch.arange(side) - side // 2).abs() <= window // 2 for side in m.shape[1:]]
            m = m * (near[0][:, None] & near[1][None, :])
        elif kind == "offset":
            m = (m == m.amax((1, 2), keepdim=True)).to(m).clamp(min=FLOOR / self._count)
        elif kind != "map":
            raise ValueError(f"kind must be one of {REPLACEMENTS}, got {kind!r}")
        pairs = unfold_offsets(m, self.grid)
        return pairs / pairs.sum(-1, keepdim=True)

    def replaced(self, kind: str, layer: int, window: int) -> Float[Tensor, "head t s"]:
        """Whole attention matrices that ignore the image, prefix tokens first, rows summing to 1.

        A patch target gives each prefix token its mean share (`columns`) and distributes the rest over patches as
        `patches` says. A prefix token has no place on the grid and no offsets: as target it gets its mean row (`rows`),
        whose part on patches is spread evenly for "uniform", and as the other head's is for "other".
        """
        own = self.rows[layer][..., self.columns.shape[2] :]
        shape = {"uniform": torch.ones_like(own), "other": own.roll(-1, 0)}.get(kind, own)
        return self.whole(layer, self.patches(kind, layer, window), shape)

    def whole(
        self, layer: int, patches: Float[Tensor, "head t s"], shape: Float[Tensor, "head p s"] | None = None
    ) -> Float[Tensor, "head T S"]:
        """Whole attention matrices around distributions over patches: what prefix tokens give and get is their mean.

        `shape` is how a prefix token as target weighs the patches, its own mean if left out; its sum is kept.
        """
        p = self.columns.shape[2]
        whole = torch.zeros(len(self.maps[layer]), p + self._count, p + self._count, dtype=torch.float64)
        left = 1 - self.columns[layer].sum(-1)
        whole[:, p:, :p] = self.columns[layer].unsqueeze(1)
        whole[:, p:, p:] = left[:, None, None] * patches
        rows = self.rows[layer]
        own = rows[..., p:]
        shape = (own if shape is None else shape).clamp(min=FLOOR)
        whole[:, :p, :p] = rows[..., :p]
        whole[:, :p, p:] = own.sum(-1, keepdim=True) * shape / shape.sum(-1, keepdim=True)
        return whole

    @property
    def _count(self) -> int:
        return self.grid[0] * self.grid[1]


@torch.no_grad()
def head_positions(
    reader: AttentionReader, batches: Iterable[tuple[Tensor, Tensor] | list[Tensor]], *, progress: bool = False
) -> HeadPositions:
    """Sum every head's attention by offset in one pass over batches of images; memory does not grow with them.

    Raises ValueError where there are no images or targets that give patches no weight at all, and RuntimeError if the
    weights fail verification (`AttentionReader.verify`).
    """
    depth, heads, (rows, columns), p = len(reader.layers), reader.num_heads, reader.grid, reader.prefix
    n = rows * columns
    by_offset = torch.zeros(depth, heads, 2 * rows - 1, 2 * columns - 1, dtype=torch.float64)
    square, entropy = (torch.zeros(depth, heads, dtype=torch.float64) for _ in range(2))
    to_prefix = torch.zeros(depth, heads, p, dtype=torch.float64)
    of_prefix = torch.zeros(depth, heads, p, p + n, dtype=torch.float64)

    def add(layer: int, attention: Tensor) -> None:
        attention = attention.float()
        patches = attention[:, :, p:, p:]
        patches = patches / patches.sum(-1, keepdim=True)
        by_offset[layer] += fold_offsets(patches.sum(0), reader.grid).double().cpu()
        square[layer] += patches.square().sum((0, 2, 3), dtype=torch.float64).cpu()
        entropy[layer] += torch.special.entr(patches).sum((0, 2, 3), dtype=torch.float64).cpu()
        to_prefix[layer] += attention[:, :, p:, :p].sum((0, 2), dtype=torch.float64).cpu()
        of_prefix[layer] += attention[:, :, :p].sum(0, dtype=torch.float64).cpu()

    device = next(reader.model.parameters()).device
    images, error = 0, 0.0
    for batch in bar(batches, "attention by offset", shown=progress, patience=0.0):
        image = batch[0].to(device)
        if not images:
            error = reader.verify(image[:VERIFIED_IMAGES])
        images += len(image)
        with reader.exposed(add):
            reader.logits(image)
    if not images:
        raise ValueError("batches must hold at least one image, got none")
    if not by_offset.isfinite().all():
        raise ValueError(f"{reader.source}: some target gives patches no attention; there is nothing to average")
    targets = targets_per_offset(reader.grid)
    maps = by_offset / (images * targets)
    # Sums over images, targets and sources; the mean of p is 1/n exactly, since every row sums to 1.
    total = square - images
    between = (by_offset * maps).sum((2, 3)) - images
    pairs = unfold_offsets(maps, reader.grid)
    norm = pairs.sum(-1).log().sum(-1)
    cross = torch.special.xlogy(by_offset, maps).sum((2, 3)) / images - norm
    information = torch.tensor(float(n)).log() - entropy / (images * n)
    unexplained = -(entropy / images + cross) / n
    return HeadPositions(
        maps,
        (between / total).where(total > FLAT * images, torch.nan),
        (1 - unexplained / information).where(information > FLAT, torch.nan),
        information,
        to_prefix / (images * n),
        of_prefix / images,
        images,
        reader.grid,
        error,
    )
