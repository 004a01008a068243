"""Where the heads of any model look, by offset: a ViT's relative attention and an AFT's position biases in one unit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float

from aft_lens.checkpoint import CONFIG, checkpoint_folder, load_checkpoint
from aft_lens.extraction import (
    AttentionReader,
    drawn_words,
    fold_offsets,
    image_batches,
    open_source,
    stream_relative,
    targets_per_offset,
)
from aft_lens.models import VisionModel, position_biases
from analyses.bias import position_bias_maps
from analyses.maps.frame import framed

Remainder = Literal["apart", "included"]


@dataclass(frozen=True)
class OffsetMaps:
    """What every head adds to the uniform weight of an offset, target at the middle."""

    label: str
    kind: str
    """"attention" (a ViT) or "bias" (an AFT)."""
    excess: Float[np.ndarray, "layer head dy dx"]
    """Weight relative to a uniform share, minus 1: n x attention - 1 (border-corrected), or exp(w) - 1. 0 is uniform,
    -1 is no weight."""
    grid: tuple[int, int]
    """Patches (rows, columns); n is their product."""
    patch: tuple[float, float]
    """Rows and columns of a patch, in pixels."""
    resampled: Float[np.ndarray, "r layer head dy dx"] | None = None
    """`excess` of r Poisson bootstrap samples of the images; None for position biases, which see no image."""
    images: int = 0
    beyond: float = 0.0
    """Excess at offsets outside the map: 0 where AFT pools them, -1 where nothing is read there."""
    control: bool = False
    """True: random weights."""
    drawn: str = ""
    """Of which data set the images are, and which of it, in words."""

    def mass(
        self, excess: Float[np.ndarray, "*n dy dx"], *, remainder: Remainder = "apart", plain: bool = False
    ) -> Float[np.ndarray, "*n y x"]:
        """The non-negative weights by offset whose locality is measured (not normalised), for maps like `excess`.

        A ViT head: its attention, n x attention. An AFT head with the remainder apart: |exp(w) - 1| on its window,
        what the head adds to or takes from the pooled sum. The pooled sum itself, weight 1 at every position for
        every head, is the global remainder: it is left out, and `remainder_share` says how much of the weight it is.
        With the remainder included, the head's whole weight where keys are equal, exp(w) in the window and 1 over the
        rest of the grid's offsets: the counterpart of attention, offset for offset. `plain` multiplies an offset by
        the share of targets that have it, (H - |dy|)(W - |dx|) / n, which turns a border-corrected average into the
        plain one over all targets.
        """
        if self.kind == "attention":
            mass = 1 + excess
        elif remainder == "apart":
            mass = np.abs(excess)
        else:
            mass = 1 + framed(excess, [2 * side - 1 for side in self.grid], self.beyond)
        if plain:
            targets = targets_per_offset(self.grid).numpy() / np.prod(self.grid)
            mass = mass * framed(targets, mass.shape[-2:])
        return mass

    def uniform(self, *, remainder: Remainder = "apart", plain: bool = False) -> Float[np.ndarray, "y x"]:
        """`mass` of a head that weighs every offset of its map alike: the baseline."""
        level = 1.0 if self.kind == "bias" and remainder == "apart" else 0.0
        return self.mass(np.full(self.excess.shape[-2:], level), remainder=remainder, plain=plain)

    @property
    def remainder_share(self) -> Float[np.ndarray, "layer head"]:
        """AFT: the pooled weight over all weight, n / (n + sum |exp(w) - 1|), 0 to 1; 0 for a ViT."""
        if self.kind == "attention":
            return np.zeros(self.excess.shape[:2])
        sides = self.excess.shape[2:] if self.beyond == -1 else self.grid
        return np.prod(sides) / (np.prod(sides) + np.abs(self.excess).sum((2, 3)))


def read_offset_maps(
    spec: str,
    *,
    images: int = 256,
    data: str | None = None,
    resamples: int = 0,
    seed: int = 0,
    control: bool = False,
    root: str | None = None,
    device: str = "cpu",
    progress: bool = False,
) -> OffsetMaps:
    """Read the maps of a source: a checkpoint folder of ours, or a ViT as `open_source` names it.

    A ViT's are averaged over the first test `images` of `data` (its own data set if None; `root` has downloaded data),
    with `resamples` bootstrap samples drawn from `seed`. With `control`, the weights are random: a ViT's as at
    initialisation, an AFT's as `redraw` says. Raises as `open_source` and `image_batches` do, and ValueError where
    there is no data set to read or the model has neither attention nor position biases.
    """
    path = checkpoint_folder(spec)
    if (path / CONFIG).is_file():
        loaded = load_checkpoint(path)
        if loaded.config.traits.weights != "attention":
            if control:
                redraw(loaded.model, seed)
            return replace(bias_offsets(loaded.model, path.name), control=control)
    reader = open_source(spec, pretrained=not control, device=device, seed=seed)
    maps = attention_offsets(
        reader, images=images, data=data, resamples=resamples, seed=seed, root=root, progress=progress
    )
    return replace(maps, label=path.name if path.is_dir() else spec, control=control)


def attention_offsets(
    reader: AttentionReader,
    *,
    images: int,
    data: str | None,
    resamples: int,
    seed: int,
    root: str | None = None,
    progress: bool = False,
) -> OffsetMaps:
    """Relative attention of a ViT over test images; raises as `image_batches` does, or ValueError without data."""
    name = data or reader.data
    if name is None:
        raise ValueError(
            f"{reader.source} does not say what it was trained on; give --data, e.g. images:PATH with a folder of "
            "images"
        )
    if reader.preprocessing is None:
        raise ValueError(f"{reader.source} does not say how images must come to it; open it with `open_source`")
    batches = image_batches(reader.preprocessing, name, images=images, root=root)
    sums = stream_relative(reader, batches, resamples=resamples, seed=seed, progress=progress)
    count = reader.grid[0] * reader.grid[1]
    return OffsetMaps(
        label=reader.source,
        kind="attention",
        excess=(sums.average() * count - 1).numpy(),
        grid=reader.grid,
        patch=_patch(reader.image_size, reader.grid),
        # A sample that happens to hold no image has no mean.
        resampled=(sums.resampled_average()[sums.weight > 0] * count - 1).numpy() if resamples else None,
        images=sums.images,
        beyond=-1.0,
        drawn=f"{name}: {drawn_words(batches)}",
    )


@torch.no_grad()
def bias_offsets(model: VisionModel, label: str) -> OffsetMaps:
    """exp(w) - 1 of an AFT-conv by offset; of an AFT-full or AFT-local, averaged over the targets that have the offset.

    Raises ValueError for a model without position biases.
    """
    config = model.config
    grid = (config.grid_size, config.grid_size)
    if config.traits.weights == "pair":
        pairs = torch.stack([w[1:, 1:] for w in position_biases(model)])
        excess = fold_offsets(torch.expm1(pairs.double()), grid) / targets_per_offset(grid)
        maps = excess.unsqueeze(1).numpy()
    else:
        maps = position_bias_maps(model).maps.astype(float)
    beyond = -1.0 if config.traits.weights == "offset" and config.outside == "none" else 0.0
    return OffsetMaps(label, "bias", maps, grid, (config.patch_size, config.patch_size), beyond=beyond)


@torch.no_grad()
def redraw(model: VisionModel, seed: int) -> None:
    """Draw an AFT's position biases anew, in place: the random-weight control.

    Raw biases are as at initialisation. Eq. 8's gamma and beta stay as trained, for at initialisation they are 0 and
    w with them: the control keeps every head's mean and standard deviation of w and forgets its places. A
    single-position head keeps the place where the raw bias peaks, an indexed head gets other places, all at random.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for block in model.blocks:
            bias: Any = getattr(block.mixer, "position_bias", None)
            if bias is not None:
                bias.redraw((model.config.window_size,) * 2)


def _patch(image: Sequence[int], grid: Sequence[int]) -> tuple[float, float]:
    return image[0] / grid[0], image[1] / grid[1]
