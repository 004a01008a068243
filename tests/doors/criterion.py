"""A pruning criterion of another package, found by `row = "criterion:ROW"` in the group aft_lens.criteria."""

import torch
from torch import Tensor

from aft_lens.models import VisionModel
from analyses.pruning import Criterion
from analyses.pruning.cutting.compact import dense_biases


def row(model: VisionModel, batches: object, seed: int) -> list[Tensor]:
    """Keep the offsets of the target's own row: scores `h y x` a layer, higher where one should stay, 0 where w is 0."""
    scores = [torch.expm1(w).abs() for w in dense_biases(model)]
    for score in scores:
        score[:, torch.arange(score.shape[1]) != score.shape[1] // 2] *= 1e-3
    return scores


ROW = Criterion(row, "largest |exp(w) − 1| in the target's row")
