"""Attention of one image: what the class token or a patch reads, by head and rolled out through the layers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from aft_lens.extraction import AttentionReader, as_reader
from analyses.command import prepared, report, report_folder, run_module
from analyses.explain import open_reader
from analyses.image_file import image_file
from analyses.maps.head_maps import HeadMaps
from analyses.maps.mosaic import SIDES, mosaic
from analyses.maps.picture import draw, size
from analyses.maps.result import TILE
from analyses.result import Result, Table

Place = tuple[int, int]
"""Row and column of a patch on the grid, from 0."""


@dataclass(frozen=True)
class ImageAttention(Result):
    """What one target of one image reads."""

    name = "attend"

    source: str
    image: Float[np.ndarray, "y x c"]
    """As the model takes it, its values moved into [0, 1]."""
    target: Place | None
    """None: the class token."""
    maps: Float[np.ndarray, "layer head y x"]
    """Attention to each patch; what is left of 1 goes to prefix tokens."""
    rollout: Float[np.ndarray, "layer y x"]
    """Attention rollout up to each layer (Abnar and Zuidema 2020): products of (A + I) / 2, A the mean over heads."""

    @property
    def words(self) -> str:
        """The target in words."""
        return (
            "the class token" if self.target is None else f"the patch in row {self.target[0]}, column {self.target[1]}"
        )

    def head_maps(self) -> HeadMaps:
        """Every head's map, 0 where attention is flat."""
        count = self.maps[0, 0].size
        return HeadMaps(count * self.maps - 1, "n × attention − 1", by_offset=False, label=self.source)

    def record(self) -> dict[str, Any]:
        """Every map."""
        return {"source": self.source, "target": self.target, "maps": self.maps, "rollout": self.rollout}

    def table(self) -> Table:
        """A row a layer: what goes to patches, and which get most."""
        rows = []
        for layer, (maps, rolled) in enumerate(zip(self.maps, self.rollout)):
            mean = maps.mean(0)
            cells = [f"{100 * mean.sum():.1f} %", _peak(mean), f"{100 * mean.max():.1f} %", _peak(rolled)]
            rows.append([str(layer), *cells])
        columns = ["layer", "to patches", "most to (row, column)", "its share", "most by rollout"]
        return Table(columns, rows, f"{self.source}: what {self.words} reads, mean over heads")

    @property
    def size(self) -> tuple[float, float]:  # type: ignore[override]
        """The image and the last rollout above the heads' mosaic."""
        width, height = size(self.head_maps())
        return max(width, 6.0), height + 3.2

    def plot(self, figure: Figure | SubFigure) -> None:
        """The image with its target, the mean over heads of the last layer and the rollout over it, then every head."""
        parts: Any = figure.subfigures(2, 1, height_ratios=[3.2, self.size[1] - 3.2])
        above, below = parts
        axes = above.subplots(1, 3)
        self._over(axes[0], None, "image" if self.target is None else "image and target")
        self._over(axes[1], self.maps[-1].mean(0), "last layer, mean over heads")
        self._over(axes[2], self.rollout[-1], "rollout")
        draw(self.head_maps(), below, f"{self.source}: what {self.words} reads")

    def interactive(self) -> go.Figure:
        """Every head's map with its value under the pointer."""
        shown = self.head_maps().spread()
        width = max(460, SIDES + TILE * shown.heads)
        title = f"{self.source}: what {self.words} reads"
        return mosaic(shown, title=title, width=width).update_layout(width=width)

    def _over(self, axis: Axes, values: Float[np.ndarray, "y x"] | None, title: str) -> None:
        """The image, a map laid over it, and a frame around the target."""
        rows, columns = self.image.shape[:2]
        grid = self.rollout.shape[1:]
        axis.imshow(self.image)
        if values is not None:
            axis.imshow(values, "inferno", alpha=0.65, extent=(0, columns, rows, 0), interpolation="nearest")
        if self.target is not None:
            high, wide = rows / grid[0], columns / grid[1]
            corner = (self.target[1] * wide, self.target[0] * high)
            axis.add_patch(Rectangle(corner, wide, high, fill=False, edgecolor="#3ddc84", linewidth=1.5))
        axis.set(xticks=[], yticks=[], xlim=(0, columns), ylim=(rows, 0))
        axis.set_title(title, fontsize=8)


@torch.no_grad()
def attend(
    model: nn.Module | AttentionReader, image: Float[Tensor, "c y x"], target: Place | None = None
) -> ImageAttention:
    """Read what a target of one image reads, as the model takes it (normalised); the class token if None is given.

    Raises ValueError on a target that is not on the grid, on None for a model without a class token and on an image of
    another size, and RuntimeError if the weights fail verification (`AttentionReader.verify`).
    """
    reader = as_reader(model)
    expected = (reader.in_chans, *reader.image_size)
    if tuple(image.shape) != expected:
        raise ValueError(f"image must be {expected}, channels x rows x columns, got {tuple(image.shape)}")
    rows, columns = reader.grid
    if target is None and not reader.prefix:
        raise ValueError(f"{reader.source} has no class token; give a target, e.g. {rows // 2},{columns // 2}")
    if target is not None and not (0 <= target[0] < rows and 0 <= target[1] < columns):
        raise ValueError(f"target must be a row of 0 to {rows - 1} and a column of 0 to {columns - 1}, got {target}")
    token = 0 if target is None else reader.prefix + target[0] * columns + target[1]
    batch = image[None].to(next(reader.model.parameters()).device)
    if target is not None and not reader.patches_read:
        raise ValueError(f"{reader.source}: the class token alone reads others; leave target out")
    reader.verify(batch, patches=False)
    weights: dict[int, Tensor] = {}
    with reader.exposed(weights.__setitem__):
        reader.logits(batch)
    maps, rolled = [], []
    tokens = reader.prefix + rows * columns
    total = torch.eye(tokens, dtype=torch.float64)
    for layer in range(len(reader.layers)):
        attention = weights[layer][0].double().cpu()
        maps.append(attention[:, token, reader.prefix :].reshape(-1, rows, columns))
        mixed = (attention.mean(0) + torch.eye(tokens, dtype=torch.float64)) / 2
        total = mixed / mixed.sum(-1, keepdim=True) @ total
        rolled.append(total[token, reader.prefix :].reshape(rows, columns))
    return ImageAttention(
        reader.source, _shown(image), target, torch.stack(maps).numpy(), torch.stack(rolled).numpy()
    )  # fmt: skip


def command(
    source: str,
    image: Path,
    target: list[int] | None = None,
    pretrained: bool = True,
    device: str = "cpu",
    seed: int = 0,
    out: Path | None = None,
) -> None:
    """Show what the class token, or a patch, of one image reads, by head and as rollout.

    Args:
        source: Folder of a ViT or AFT-conv, the name of one that ships or was trained, timm:NAME, torchvision:NAME or
            hf:NAME_OR_PATH.
        image: An image file.
        target: Row and column of a patch, from 0, e.g. [7,7]; the class token if left out.
        pretrained: False takes the model's architecture with random weights, as a control.
        device: cpu, cuda or cuda:N.
        seed: Of random weights.
        out: Folder for attend.json, .png, .svg and .html; reports/NAME if left out.
    """
    if target is not None and len(target) != 2:
        raise ValueError(f"target must be a row and a column, e.g. [7,7], got {target}")
    reader = open_reader(source, pretrained=pretrained, device=device, seed=seed)
    given = prepared(source, reader.preprocessing).transform()(image_file(image))
    found = attend(reader, given, None if target is None else (target[0], target[1]))
    report(found, out or report_folder(source, *([] if pretrained else ["random"])))


def _shown(image: Float[Tensor, "c y x"]) -> Float[np.ndarray, "y x c"]:
    """Any normalised image as colours: its least value black, its largest white."""
    pixels = image.detach().float().cpu()
    pixels = (pixels - pixels.min()) / (pixels.max() - pixels.min()).clamp(min=1e-12)
    return pixels.expand(3, -1, -1).permute(1, 2, 0).numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).numpy()


def _peak(values: Float[np.ndarray, "y x"]) -> str:
    """Row and column of the largest value."""
    row, column = np.unravel_index(values.argmax(), values.shape)
    return f"{row}, {column}"


if __name__ == "__main__":
    run_module("analyses.attend", command)
