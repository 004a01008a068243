"""Relative attention of a ViT by layer and head (Fig. 1 left, Fig. 5), in the frame and colours of the bias maps."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from jsonargparse import auto_cli
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from aft_lens.checkpoint import load_checkpoint
from aft_lens.data import load_data
from aft_lens.extraction import AttentionReader, as_reader, stream_relative
from aft_lens.models import VisionModel
from analyses.figures import rounded, save_mosaic, table

BATCH = 64


@dataclass(frozen=True)
class AttentionMaps:
    """Attention averaged over images and targets, by offset."""

    maps: Float[np.ndarray, "layer head dy dx"]
    """Mean attention weight at an offset, `2H-1 2W-1`."""
    images: int
    grid: tuple[int, int]
    """Patches (rows, columns)."""
    border_corrected: bool
    """True: an offset is averaged over the targets that have it; False: over all targets, as in the paper."""

    @property
    def excess(self) -> Float[np.ndarray, "layer head dy dx"]:
        """positions x attention - 1, the counterpart of exp(w) - 1: 0 is a uniform share."""
        return self.maps * (self.grid[0] * self.grid[1]) - 1.0

    @property
    def mean_distance(self) -> Float[np.ndarray, "layer head"]:
        """Distance in patches, averaged with the maps as weights."""
        rows, columns = (np.arange(side) - side // 2 for side in self.maps.shape[2:])
        distance = np.hypot(rows[:, None], columns[None, :])
        return (self.maps * distance).sum((2, 3)) / self.maps.sum((2, 3))

    def save(self, out: Path, *, limit: float | None = None) -> list[Path]:
        """Write attention.json, .png, .svg and .html; `limit` fixes the colour scale, e.g. to a bias figure's."""
        record = {
            "images": self.images,
            "grid": list(self.grid),
            "border_corrected": self.border_corrected,
            "mean_distance_patches": rounded(self.mean_distance),
        }
        return save_mosaic(
            self.excess, out, "attention", title=f"Relative attention over {self.images} images",
            unit="n × attention − 1", record=record, limit=limit,
        )  # fmt: skip


def attention_maps(
    model: VisionModel | AttentionReader,
    batches: Iterable[Tensor | tuple[Tensor, ...] | list[Tensor]],
    *,
    border_corrected: bool = True,
    progress: bool = False,
) -> AttentionMaps:
    """Average a ViT's attention over images and targets; raises as `stream_relative` does."""
    reader = as_reader(model)
    sums = stream_relative(reader, batches, progress=progress)
    maps = sums.average(border_corrected=border_corrected).float().numpy()
    return AttentionMaps(maps, sums.images, sums.grid, border_corrected)


def command(
    checkpoint: Path, data: str | None = None, images: int = 256, plain: bool = False, out: Path | None = None
) -> None:
    """Print the mean attention distance by layer, and save the relative attention maps.

    Args:
        checkpoint: A folder with a ViT checkpoint.
        data: Data set whose test images are averaged over; the one it was trained on if left out.
        images: Number of test images (the paper: 256).
        plain: The paper's plain average over all targets instead of the border-corrected one.
        out: Folder for attention.json, .png, .svg and .html; reports/NAME if left out.
    """
    if images < 1:
        raise ValueError(f"images must be 1 or more, got {images}")
    loaded = load_checkpoint(checkpoint)
    reader = as_reader(loaded.model)
    source = load_data(data or loaded.data["name"], img_size=loaded.data["img_size"]).test
    count = min(images, len(source))
    result = attention_maps(
        reader, DataLoader(Subset(source, range(count)), BATCH), border_corrected=not plain, progress=True
    )
    print(f"{checkpoint}: attention over {result.images} images, grid {result.grid[0]} x {result.grid[1]}")
    rows = [
        [str(i), *(f"{value:.2f}" for value in (distance.mean(), distance.min(), distance.max()))]
        for i, distance in enumerate(result.mean_distance)
    ]
    print(table(["layer", "mean distance (patches)", "nearest head", "farthest head"], rows))
    for path in result.save(out or Path("reports") / checkpoint.name):
        print(f"wrote {path}")


if __name__ == "__main__":
    auto_cli(command)
