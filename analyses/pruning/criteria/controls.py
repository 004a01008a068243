"""Controls that know nothing of what the model has learned: places at random, and those nearest the target."""

import torch
from torch import Tensor

from aft_lens.models import VisionModel
from analyses.pruning.criteria.registry import CRITERIA, Criterion
from analyses.pruning.cutting.compact import dense_biases
from analyses.pruning.measuring.cost import Batches


def random(model: VisionModel, batches: Batches, seed: int) -> list[Tensor]:
    """Scores drawn with `seed`."""
    generator = torch.Generator().manual_seed(seed)
    return [(torch.rand(w.shape, generator=generator).to(w.device) + 0.5) * (w != 0) for w in dense_biases(model)]


def centre(model: VisionModel, batches: Batches, seed: int) -> list[Tensor]:
    """1 / (1 + distance from the target), ties broken in raster order."""
    return [_nearness(w) * (w != 0) for w in dense_biases(model)]


def _nearness(w: Tensor) -> Tensor:
    grid = torch.meshgrid(*(torch.arange(side, device=w.device) - side // 2 for side in w.shape[1:]), indexing="ij")
    distance = torch.stack(grid).float().norm(dim=0)
    return (1 / (1 + distance)).expand_as(w).contiguous()


CRITERIA.add("random", Criterion(random, "drawn at random", control=True))
CRITERIA.add("centre", Criterion(centre, "nearest to the target itself", control=True))
