"""Criteria that the biases alone answer: their size, and Eq. 10's choice."""

import torch
from torch import Tensor

from aft_lens.models import VisionModel
from analyses.pruning.criteria.registry import CRITERIA, Criterion
from analyses.pruning.cutting.compact import conv_mixers, dense_biases
from analyses.pruning.measuring.cost import Batches


def magnitude(model: VisionModel, batches: Batches, seed: int) -> list[Tensor]:
    """|exp(w) - 1|, what an offset adds beyond the pool (Eq. 3)."""
    return [torch.expm1(w).abs() for w in dense_biases(model)]


def hard(model: VisionModel, batches: Batches, seed: int) -> list[Tensor]:
    """softmax(w) over the window, whose first is Eq. 10's hard choice; for Eq. 10 of the inner w, at its choice."""
    scores = []
    for mixer, w in zip(conv_mixers(model), dense_biases(model), strict=True):
        logits = mixer.position_bias.logits()
        share = (w if logits is None else logits.detach()).flatten(1).softmax(1).view(w.shape)
        scores.append(share * (w != 0))
    return scores


CRITERIA.add("magnitude", Criterion(magnitude, "largest |exp(w) − 1|"))
CRITERIA.add("hard", Criterion(hard, "largest softmax(w), Eq. 10's choice first"))
