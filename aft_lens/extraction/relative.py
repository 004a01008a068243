"""Relative attention: weights averaged over images and targets, by offset (Fig. 1 left, Fig. 5), streamed."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aft_lens.extraction.offsets import fold_offsets, targets_per_offset
from aft_lens.extraction.reader import AttentionReader
from aft_lens.extraction.sources import as_reader
from aft_lens.mode import evaluating
from aft_lens.progress import progress as bar

ImageBatches = Tensor | Iterable[Tensor | tuple[Tensor, ...] | list[Tensor]]
"""Images `b c y x` as a model takes them: one tensor, or batches that are tensors or start with one."""
VERIFIED_IMAGES = 2
"""Images of the first batch on which the extraction is checked against the model's own outputs."""


@dataclass(frozen=True)
class RelativeSums:
    """Sums over images and targets by offset, patch tokens alone; what every average is made from."""

    total: Float[Tensor, "layer head dy dx"]
    """Sum of the attention over all images and targets, float64."""
    resampled: Float[Tensor, "r layer head dy dx"]
    """The same for r Poisson bootstrap samples of the images (r may be 0)."""
    weight: Float[Tensor, "r"]
    """Images in each bootstrap sample, counted with their multiplicity."""
    images: int
    grid: tuple[int, int]
    error: float
    """Largest relative error of a block output recomputed from the extracted weights."""

    def average(self, *, border_corrected: bool = True) -> Float[Tensor, "layer head dy dx"]:
        """Mean attention by offset.

        Border-corrected, an offset is averaged over the targets that have a source there; else over all targets,
        as in the paper, which fades the far offsets.
        """
        return self.total / (self.images * self._targets(border_corrected))

    def resampled_average(self, *, border_corrected: bool = True) -> Float[Tensor, "r layer head dy dx"]:
        """`average` of every bootstrap sample."""
        count = self.weight.clamp(min=1).reshape(-1, 1, 1, 1, 1)
        return self.resampled / (count * self._targets(border_corrected))

    def _targets(self, border_corrected: bool) -> Tensor:
        count = targets_per_offset(self.grid)
        return count if border_corrected else torch.full_like(count, self.grid[0] * self.grid[1])


@torch.no_grad()
def stream_relative(
    model: nn.Module | AttentionReader,
    batches: ImageBatches,
    *,
    resamples: int = 0,
    seed: int = 0,
    progress: bool = False,
) -> RelativeSums:
    """Sum a ViT's attention by offset over batches of images, in memory that does not grow with their number.

    `batches` are images as the model takes them, sized and normalised: one tensor `b c y x`, or an iterable of such
    tensors or of tuples that start with one, as loaders of (images, labels) give (see `image_batches`). Class and other
    prefix tokens are dropped as targets and as sources. Every batch is folded to offsets at once, layer by layer, as
    its weights come by; the extraction is verified on the first images (see `AttentionReader.verify`). With
    `resamples`, that many Poisson bootstrap samples of the images are summed along. The model runs in evaluation mode
    and is put back after. Raises ValueError on `batches` that are empty or no such images, and RuntimeError if a
    layer's weights never came or fail verification.
    """
    reader = as_reader(model)
    batches = _listed(batches)
    depth, (rows, columns) = len(reader.layers), reader.grid
    shape = (depth, reader.num_heads, 2 * rows - 1, 2 * columns - 1)
    total = torch.zeros(shape, dtype=torch.float64)
    resampled = torch.zeros(resamples, *shape, dtype=torch.float64)
    weight = torch.zeros(resamples, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    images, error = 0, 0.0
    calls = [0] * depth
    share = torch.zeros(resamples, 0)

    def patches(attention: Tensor) -> Tensor:
        return attention[..., reader.prefix :, reader.prefix :]

    def add(layer: int, attention: Tensor) -> None:
        calls[layer] += 1
        if resamples:
            folded = fold_offsets(patches(attention.float()), reader.grid)
            total[layer] += folded.sum(0).double().cpu()
            resampled[:, layer] += torch.einsum("rb,bhyx->rhyx", share.to(folded), folded).double().cpu()
        else:  # summed over the images first: one pass over the weights, the fold on what is left
            total[layer] += fold_offsets(patches(attention.sum(0, dtype=torch.float32)), reader.grid).double().cpu()

    device = next(reader.model.parameters()).device
    with evaluating(reader.model):
        for number, batch in enumerate(bar(batches, "relative attention", shown=progress, patience=0.0)):
            image = _images(batch, reader).to(device)
            if number == 0:
                error = _verified(reader, image[:VERIFIED_IMAGES])
            share = torch.poisson(torch.ones(resamples, len(image)), generator=generator)
            weight += share.sum(1).double()
            images += len(image)
            with reader.exposed(add):
                reader.logits(image)
            if min(calls) != number + 1 or max(calls) != number + 1:
                raise RuntimeError(f"{reader.source}: attention layers fired {calls} times in {number + 1} batches")
    if not images:
        raise ValueError("batches must hold at least one image, got none")
    return RelativeSums(total, resampled, weight, images, reader.grid, error)


def relative_attention(
    model: nn.Module | AttentionReader,
    batches: ImageBatches,
    *,
    border_corrected: bool = True,
    progress: bool = False,
) -> Float[Tensor, "layer head dy dx"]:
    """Average a ViT's attention over images and targets by offset, shape `layer head 2H-1 2W-1`, float64.

    See `stream_relative` for the batches, what is dropped and what is raised, and `RelativeSums.average` for the
    border correction (False: the paper's plain average over all targets).
    """
    return stream_relative(model, batches, progress=progress).average(border_corrected=border_corrected)


def _listed(batches: Any) -> Iterable[Any]:
    """The batches of an iterable, or the one that a tensor is; ValueError on anything else."""
    if isinstance(batches, Tensor):
        return [batches]
    if isinstance(batches, str) or not isinstance(batches, Iterable):
        raise ValueError(
            f"batches must be a tensor of images b x c x y x x, or an iterable of such, got {type(batches).__name__}; "
            "aft_lens.image_batches(reader.preprocessing, 'digits', images=256) makes them"
        )
    return batches


def _images(batch: Any, reader: AttentionReader) -> Tensor:
    """The images of a batch, `b c y x`; ValueError on anything else."""
    image = batch if isinstance(batch, Tensor) else batch[0] if isinstance(batch, tuple | list) and batch else None
    if not isinstance(image, Tensor) or image.ndim != 4 or image.shape[1] != reader.in_chans or not len(image):
        got = f"shape {tuple(image.shape)}" if isinstance(image, Tensor) else type(batch).__name__
        rows, columns = reader.image_size
        raise ValueError(
            f"batches must hold images of {reader.in_chans} channels, b x {reader.in_chans} x rows x columns, or "
            f"tuples that start with them, got {got}; {reader.source} takes {rows} x {columns} pixels"
        )
    return image


def _verified(reader: AttentionReader, images: Tensor) -> float:
    """What `AttentionReader.verify` returns; ValueError where the model does not take images of that size."""
    try:
        return reader.verify(images)
    except AssertionError as error:  # how timm and torchvision refuse a size
        rows, columns = reader.image_size
        raise ValueError(
            f"batches must hold images of {rows} x {columns} pixels, which {reader.source} takes, got "
            f"{images.shape[2]} x {images.shape[3]} ({error})"
        ) from error
