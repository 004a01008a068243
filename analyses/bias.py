"""Position-bias maps: exp(w) - 1 by layer and head (Fig. 6-8), or by target for AFT-full and AFT-local (Fig. 3)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from aft_lens.checkpoint import load_checkpoint, read_first
from aft_lens.models import VisionModel, as_model, conv_biases, conv_layers, position_biases
from analyses.command import report, report_folder, run_module
from analyses.learned.measure import Learned, learned
from analyses.maps.head_maps import HeadMaps
from analyses.maps.result import MapResult
from analyses.result import Table, mean_cell

TARGETS = 3
"""AFT-full: targets drawn along each side of the grid."""
IDLE = 0.01
"""Share of the weight that a bias must move to do anything."""


@dataclass(frozen=True)
class BiasMaps(MapResult):
    """What a model's position biases do to the weights of its sources."""

    name = "bias"

    maps: Float[np.ndarray, "layer head y x"]
    """exp(w) - 1: 0 leaves a source its pooled weight. By offset from the target for AFT-conv; over the whole grid
    for a few targets in the place of heads for AFT-full and AFT-local."""
    entropy: Float[np.ndarray, "layer head"]
    """Entropy of softmax(w) over the map, in nats; log(positions) where w is flat."""
    mean_distance: Float[np.ndarray, "layer head"]
    """Distance from the target in patches, averaged with weights |exp(w) - 1|; NaN where all are 0."""
    moved: Float[np.ndarray, "layer head"]
    """Share of a target's weight that the bias moves where keys are equal, 0 to 1: the total variation between the
    weights with w and with w = 0, in the middle of the training grid (of the window, where a foreign model does not
    say its grid). It stays readable where exp(w) - 1 is 1e9."""
    targets: tuple[tuple[int, int], ...] | None = None
    """AFT-full and AFT-local: the target (row, column) of each map along the heads' axis; None by offset."""
    source: str = "model"
    """What was read."""
    learned: Learned | None = None
    """The biases against where they started; None where no start is kept, or nothing has one."""

    @property
    def title(self) -> str:  # type: ignore[override]
        """What the maps are, and whether training made them, where that is known."""
        return f"Position biases, {self.learned.words}" if self.learned else "Position biases"

    @property
    def kind(self) -> str:
        """What the maps are by: "offset" (AFT-conv) or "target" (AFT-full, AFT-local)."""
        return "offset" if self.targets is None else "target"

    @property
    def idle(self) -> Bool[np.ndarray, "layer head"]:
        """Heads whose bias moves less than a hundredth of the weight: without it they would do the same."""
        return self.moved < IDLE

    @property
    def uniform_entropy(self) -> float:
        """Entropy of a flat w, in nats."""
        return math.log(self.maps.shape[2] * self.maps.shape[3])

    def head_maps(self, label: str = "") -> HeadMaps:
        """exp(w) − 1: by offset for AFT-conv (Fig. 6 to 8), over the grid for a few targets for AFT-full (Fig. 3)."""
        return HeadMaps(
            self.maps, "exp(w) − 1", by_offset=self.targets is None, label=label or self.source, targets=self.targets,
            distance=self.mean_distance, words=self.learned.words if self.learned else "", idle=self.idle,
        )  # fmt: skip

    def record(self) -> dict[str, Any]:
        """The maps, and what is measured of each."""
        return {
            "source": self.source,
            "kind": self.kind,
            "targets": self.targets,
            "entropy_nats": self.entropy,
            "mean_distance_patches": self.mean_distance,
            "moved": self.moved,
            "idle": self.idle,
            "learned": self.learned and self.learned.record(),
            "uniform_entropy_nats": self.uniform_entropy,
            "maps": self.maps,
        }

    def table(self) -> Table:
        """A row a layer, means over its heads."""
        columns = [
            "layer", "entropy (nats)", "effective positions", "mean distance (patches)", "max |exp(w) - 1|",
            "weight moved", "idle heads",
        ]  # fmt: skip
        if self.learned is not None:
            columns = [*columns, "start |r|", f"strongest as at start (chance {100 * self.learned.chance:.1f} %)"]
        rows = [
            [
                str(i),
                f"{entropy.mean():.3f}",
                f"{np.exp(entropy).mean():.1f}",
                mean_cell(distance, 2),
                f"{np.abs(maps).max():.4g}",
                f"{100 * moved.mean():.0f} %",
                f"{idle.sum()} of {len(idle)}",
                *([] if self.learned is None else self.learned.cells(i)),
            ]
            for i, (entropy, distance, maps, moved, idle) in enumerate(
                zip(self.entropy, self.mean_distance, self.maps, self.moved, self.idle, strict=True)
            )
        ]
        title = f"exp(w) - 1 by {self.kind}; entropy of a flat w is {self.uniform_entropy:.3f} nats"
        return Table(columns, rows, f"{self.source}: {title}", self.learned.words if self.learned else "")


@torch.no_grad()
def position_bias_maps(
    model: nn.Module, source: str = "model", first: Mapping[str, torch.Tensor] | None = None
) -> BiasMaps:
    """Read the biases a model uses at inference: hard ones for single-position heads.

    The model is one of ours, or any other that AFT-conv layers were put into: its layers are those, in the order of
    its modules. `first` is where they started (`read_first`). Raises ValueError for a model without position biases,
    and for AFT-conv layers whose heads or windows are not the same.
    """
    model = as_model(model)
    targets = None
    if isinstance(model, VisionModel) and model.config.traits.weights == "pair":
        w, centre = _targets(model)
        targets = tuple((int(y), int(x)) for y, x in centre)
    elif layers := conv_layers(model):
        w = torch.stack(position_biases(model) if isinstance(model, VisionModel) else conv_biases(layers))
        centre = torch.tensor([[side // 2 for side in w.shape[2:]]]).expand(w.shape[1], 2)
    else:
        kind = model.config.mixer if isinstance(model, VisionModel) else type(model).__name__
        raise ValueError(
            f"{source} ({kind}) has no position biases; aft_lens.attention_maps (`aft-lens attention`) reads a ViT"
        )
    w = w.float().cpu()
    maps = torch.expm1(w)
    log = torch.log_softmax(w.flatten(2), -1)
    y, x = torch.meshgrid(torch.arange(w.shape[2]), torch.arange(w.shape[3]), indexing="ij")
    distance = ((y - centre[:, 0, None, None]) ** 2 + (x - centre[:, 1, None, None]) ** 2).float().sqrt()
    weight = maps.abs()
    mean = (weight * distance).sum((2, 3)) / weight.sum((2, 3))
    return BiasMaps(
        maps.numpy(), -(log.exp() * log).sum(-1).numpy(), mean.numpy(), _moved(w, _positions(model)),
        targets, source, learned(model, first or {}),
    )  # fmt: skip


def _positions(model: nn.Module) -> int:
    """Sources of a target on the training grid, as the model or its patch embedding says it; 0 where neither does."""
    if isinstance(model, VisionModel):
        return model.config.grid_size**2
    return math.prod(getattr(getattr(model, "patch_embed", None), "grid_size", None) or (0,))


def _moved(w: Float[Tensor, "layer head y x"], sources: int) -> Float[np.ndarray, "layer head"]:
    """Total variation between softmax(w) over `sources`, those beyond the window at w = 0, and equal weights."""
    beyond = max(0, sources - w.shape[2] * w.shape[3])
    logits = torch.cat([w.flatten(2).double(), w.new_zeros(*w.shape[:2], beyond).double()], -1)
    return ((logits.softmax(-1) - 1 / logits.shape[-1]).abs().sum(-1) / 2).numpy()


def _targets(model: VisionModel) -> tuple[torch.Tensor, torch.Tensor]:
    """w of a few targets over the grid, `layer target y x`, and where the targets lie, `target 2`."""
    side = model.config.grid_size
    steps = torch.linspace(0, side - 1, min(TARGETS, side)).round().long()
    place = torch.cartesian_prod(steps, steps).reshape(-1, 2)
    rows = 1 + place[:, 0] * side + place[:, 1]
    return torch.stack([w[rows][:, 1:].reshape(-1, side, side) for w in position_biases(model)]), place


def command(checkpoint: Path, out: Path | None = None) -> None:
    """Print entropy and mean distance of the position biases by layer, and save the maps.

    Args:
        checkpoint: An AFT's folder, or the name of one that ships or was trained.
        out: Folder for bias.json, .png, .svg and .html; reports/NAME if left out.
    """
    loaded = load_checkpoint(checkpoint)
    result = position_bias_maps(loaded.model, str(checkpoint), read_first(loaded.path))
    report(result, out or report_folder(checkpoint))


if __name__ == "__main__":
    run_module("analyses.bias", command)
