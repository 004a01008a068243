"""Which offsets stay: the k best-scored ones a head, a layer or a model."""

from collections.abc import Sequence

import torch
from torch import Tensor

BUDGETS = ("head", "layer", "global")


def select(scores: Sequence[Tensor], keep: float, budget: str = "head") -> list[Tensor]:
    """Masks (`h y x` a layer, True where kept) of the best-scored offsets under a budget of `keep` a head.

    `budget` "head" keeps exactly `keep` in every head; "layer" keeps `keep` x heads wherever in the layer they
    score best, "global" wherever in the model, so some heads get more and some none; there `keep` may be a
    fraction. An offset with score 0 does nothing and is never kept. Raises ValueError on a budget that is
    unknown, negative, or not whole for "head".
    """
    if budget not in BUDGETS:
        raise ValueError(f"budget must be one of {BUDGETS}, got {budget!r}")
    if keep < 0 or (budget == "head" and keep != int(keep)):
        kind = "a whole number from 0" if budget == "head" else "0 or more"
        raise ValueError(f'keep must be {kind} with budget="{budget}", got {keep}')
    if budget == "head":
        return [_best(score.flatten(1), int(keep)).view(score.shape) for score in scores]
    if budget == "layer":
        return [_best(score.view(1, -1), round(keep * len(score))).view(score.shape) for score in scores]
    flat = torch.cat([score.flatten() for score in scores])
    chosen = _best(flat.unsqueeze(0), round(keep * sum(len(score) for score in scores)))[0]
    parts = chosen.split([score.numel() for score in scores])
    return [part.view(score.shape) for part, score in zip(parts, scores, strict=True)]


def dropped_heads(masks: Sequence[Tensor]) -> list[tuple[int, int]]:
    """(layer, head) of every head that keeps nothing, and so is AFT-simple with its one key channel."""
    return [
        (layer, head)
        for layer, mask in enumerate(masks)
        for head, kept in enumerate(mask.flatten(1).any(1))
        if not kept
    ]


def _best(scores: Tensor, count: int) -> Tensor:
    """True at the `count` highest scores of each row, ties to the earlier place, zeros left out."""
    order = scores.argsort(stable=True, dim=1, descending=True)[:, :count]
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, order, True) & (scores != 0)
