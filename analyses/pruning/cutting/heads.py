"""Heads whose bias can go entirely: what each costs alone, and the longest list that stays within a tolerance."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from aft_lens.models import VisionModel
from analyses.pruning.cutting.compact import masked_model
from analyses.pruning.measuring.cost import Batches, predict
from analyses.pruning.measuring.rung import kept_masks


@dataclass(frozen=True)
class HeadDrops:
    """What dropping position biases to AFT-simple costs, head by head and one after another."""

    loss_change: np.ndarray
    """Cross-entropy without the head's bias minus with it, `layer head`."""
    order: list[tuple[int, int]]
    """(layer, head) from the cheapest to the dearest; heads without a bias are left out."""
    accuracy: list[float]
    """Accuracy with the first 0, 1, 2, … heads of `order` dropped together."""
    dropped: list[tuple[int, int]]
    """The longest start of `order` that stays within the tolerance."""
    masks: list[Tensor]
    """Masks (`h y x` a layer) with those heads empty, for `compact_model`."""


def droppable_heads(
    model: VisionModel, batches: Batches, *, tolerance: float = 0.0, masks: Sequence[Tensor] | None = None
) -> HeadDrops:
    """Find the heads that `model`, cut by `masks` (by default uncut), can lose to AFT-simple.

    Each head's bias is set to 0 alone and the loss measured on `batches`; then heads go in that order, together,
    as long as accuracy falls by at most `tolerance` (0 to 1). Raises ValueError on a negative tolerance.
    """
    if tolerance < 0:
        raise ValueError(f"tolerance must be 0 or more, got {tolerance}")
    kept = [mask.clone() for mask in (kept_masks(model) if masks is None else masks)]
    loss, accuracy = _measure(model, kept, batches)
    change = np.zeros((len(kept), len(kept[0])))
    present = [(layer, head) for layer, mask in enumerate(kept) for head in range(len(mask)) if mask[head].any()]
    for layer, head in present:
        change[layer, head] = _measure(model, _without(kept, [(layer, head)]), batches)[0] - loss
    order = sorted(present, key=lambda place: change[place])
    accuracies, count = [accuracy], 0
    for length in range(1, len(order) + 1):
        accuracies.append(_measure(model, _without(kept, order[:length]), batches)[1])
        if accuracy - accuracies[-1] > tolerance + 1e-12:
            break
        count = length
    return HeadDrops(change, order, accuracies, order[:count], _without(kept, order[:count]))


def _without(masks: Sequence[Tensor], heads: Sequence[tuple[int, int]]) -> list[Tensor]:
    """The masks with some heads empty."""
    masks = [mask.clone() for mask in masks]
    for layer, head in heads:
        masks[layer][head] = False
    return masks


def _measure(model: VisionModel, masks: Sequence[Tensor], batches: Batches) -> tuple[float, float]:
    """Cross-entropy and accuracy of the masked model."""
    logits, labels = predict(masked_model(model, masks), batches)
    with torch.no_grad():
        return float(F.cross_entropy(logits, labels)), float((logits.argmax(1) == labels).float().mean())
