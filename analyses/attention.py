"""Relative attention of a ViT by layer and head (Fig. 1 left, Fig. 5), in the frame and colours of the bias maps."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import nn

from aft_lens.extraction import (
    AttentionReader,
    ImageBatches,
    as_reader,
    drawn_words,
    image_batches,
    open_positions,
    open_source,
    stream_relative,
    targets_per_offset,
)
from analyses.built_in_positions import built_in_positions
from analyses.command import prepared, report, report_folder, run_module, save
from analyses.maps.frame import mean_distance
from analyses.maps.head_maps import HeadMaps
from analyses.maps.result import MapResult
from analyses.result import Table


@dataclass(frozen=True)
class AttentionMaps(MapResult):
    """Attention averaged over images and targets, by offset."""

    name = "attention"

    maps: Float[np.ndarray, "layer head dy dx"]
    """Mean attention weight at an offset, `2H-1 2W-1`."""
    images: int
    grid: tuple[int, int]
    """Patches (rows, columns)."""
    border_corrected: bool
    """True: an offset is averaged over the targets that have it; False: over all targets, as in the paper."""
    source: str = "model"
    """What was opened."""
    error: float = 0.0
    """Largest relative error of an attention output recomputed from the extracted weights."""
    trained_grid: tuple[int, int] | None = None
    """Patches that the position embeddings were trained for, where they were interpolated to others."""
    data: str = ""
    """Name of the images' data set."""
    drawn: str = ""
    """Which of its images these are, in words."""

    @property
    def excess(self) -> Float[np.ndarray, "layer head dy dx"]:
        """positions x attention - 1, the counterpart of exp(w) - 1: 0 is a uniform share."""
        return self.maps * (self.grid[0] * self.grid[1]) - 1.0

    @property
    def mean_distance(self) -> Float[np.ndarray, "layer head"]:
        """Distance from a target to what it attends to in patches, averaged over targets with attention as weights.

        It does not depend on `border_corrected`: an offset weighs by the targets that have it.
        """
        return mean_distance(self.maps * targets_per_offset(self.grid).numpy() if self.border_corrected else self.maps)

    @property
    def uniform_distance(self) -> float:
        """`mean_distance` of attention that is the same everywhere."""
        return float(mean_distance(targets_per_offset(self.grid).numpy()))

    @property
    def title(self) -> str:  # type: ignore[override]
        """Says how many images."""
        return f"Relative attention over {self.images} images"

    def head_maps(self, label: str = "", *, excess: bool = True) -> HeadMaps:
        """Relative attention by offset (Fig. 1, left), as excess over uniform attention: the scale of exp(w) − 1."""
        values, unit = (self.excess, "n × attention − 1") if excess else (self.maps, "mean attention")
        return HeadMaps(values, unit, label=label or self.source, signed=excess, distance=self.mean_distance)

    def record(self) -> dict[str, Any]:
        """The excess, and how far each head looks."""
        return {
            "source": self.source,
            "verification_error": self.error,
            "images": self.images,
            "data": self.data,
            "drawn": self.drawn,
            "grid": self.grid,
            "border_corrected": self.border_corrected,
            "mean_distance_patches": self.mean_distance,
            "uniform_distance_patches": self.uniform_distance,
            "maps": self.excess,
        }

    def table(self) -> Table:
        """The mean distance of each layer's heads."""
        words = f"{self.source}: attention over {self.images} images, grid {self.grid[0]} x {self.grid[1]}"
        if self.trained_grid is not None:
            words += f" (position embeddings interpolated from {self.trained_grid[0]} x {self.trained_grid[1]})"
        words += f"\nuniform attention lies {self.uniform_distance:.2f} patches from its target on average"
        rows = [
            [str(i), *(f"{value:.2f}" for value in (distance.mean(), distance.min(), distance.max()))]
            for i, distance in enumerate(self.mean_distance)
        ]
        return Table(["layer", "mean distance (patches)", "nearest head", "farthest head"], rows, words)


def attention_maps(
    model: nn.Module | AttentionReader,
    batches: ImageBatches,
    *,
    border_corrected: bool = True,
    data: str = "",
    progress: bool = False,
) -> AttentionMaps:
    """Average a ViT's attention over images and targets, of the data set `data`; raises as `stream_relative` does.

    `batches` are images as the model takes them: one tensor `b c y x`, or an iterable of such tensors or of (images,
    labels) pairs. `image_batches(as_reader(model).preprocessing, "images:PATH", images=256)` makes them of files.
    """
    reader = as_reader(model)
    sums = stream_relative(reader, batches, progress=progress)
    maps = sums.average(border_corrected=border_corrected).float().numpy()
    trained = None if reader.trained_grid == reader.grid else reader.trained_grid
    return AttentionMaps(
        maps, sums.images, sums.grid, border_corrected, reader.source, sums.error, trained, data, drawn_words(batches)
    )


def command(
    source: str,
    data: str | None = None,
    images: int = 256,
    plain: bool = False,
    positions: bool = False,
    pretrained: bool = True,
    grid: tuple[int, int] | None = None,
    prefix: int | None = None,
    root: str | None = None,
    device: str = "cpu",
    seed: int = 0,
    out: Path | None = None,
) -> None:
    """Print the mean attention distance by layer, and save the relative attention maps.

    Args:
        source: A ViT's folder, the name of one that ships or was trained, torchvision:NAME, timm:NAME or
            hf:NAME_OR_PATH.
        data: Data set whose test images are averaged over, images:PATH for a folder of images without classes; the
            one it was trained on if left out.
        images: Number of test images (the paper: 256).
        plain: The paper's plain average over all targets instead of the border-corrected one.
        positions: The relative-position biases or gated positions of a timm model instead (needs no images).
        pretrained: False draws random weights for the same architecture.
        grid: Patches to run at, as [ROWS,COLUMNS]; position embeddings are interpolated to others than the trained.
        prefix: Tokens before the patches, where they are not to be inferred.
        root: Folder of downloaded data; data/ if left out.
        device: cpu, cuda or cuda:N.
        seed: Of random weights.
        out: Folder for attention.json, .png, .svg and .html; if left out reports/NAME, with what is not as usual.
    """
    source = str(source)
    variant = [] if pretrained else ["random"]
    variant += ["x".join(map(str, grid))] if grid else []
    variant += ["plain"] if plain and not positions else []
    folder = out or report_folder(source, *variant)
    if positions:
        found = built_in_positions(open_positions(source, pretrained=pretrained, grid=grid), source)
        for group in found:
            print(group)
        for number, group in enumerate(found):
            save(group, folder, None if len(found) == 1 else f"{group.name}-{number}")
    else:
        reader = open_source(source, pretrained=pretrained, grid=grid, prefix=prefix, device=device, seed=seed)
        name, batches = _batches(reader, data, images, root)
        report(attention_maps(reader, batches, border_corrected=not plain, data=name, progress=True), folder)


def _batches(reader: AttentionReader, data: str | None, images: int, root: str | None) -> tuple[str, Iterable[Any]]:
    """Name of the data set, and test images as the model takes them; ValueError where it is not known which or how."""
    name = data or reader.data
    if name is None:
        raise ValueError(
            f"{reader.source} does not say which images it was trained on; give --data, e.g. images:PATH with a folder "
            "of images"
        )
    way = prepared(reader.source, reader.preprocessing)
    return name, image_batches(way, name, images=images, root=root, device=reader.device)


if __name__ == "__main__":
    run_module("analyses.attention", command)
