"""Accuracy and loss of a trained model with intervals, overall and by class."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset
from torchmetrics.functional.classification import multiclass_stat_scores

from aft_lens.data import ResidentBatches
from aft_lens.models import VisionModel
from aft_lens.statistics import normal_interval, wilson


@dataclass(frozen=True)
class Evaluation:
    """What a model does on one split; intervals are 95 %."""

    images: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    """Wilson's score interval."""
    loss: float
    """Mean cross entropy in nats."""
    loss_interval: tuple[float, float]
    """Mean plus and minus 1.96 standard errors."""
    by_class: list[tuple[str, int, float]]
    """Class, its images, its accuracy (NaN without images)."""


@torch.no_grad()
def evaluate(
    model: VisionModel,
    split: Dataset | ResidentBatches,
    classes: list[str],
    *,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
) -> Evaluation:
    """Classify every image of a split, or of batches in memory. Raises ValueError if there are none."""
    model.to(device).eval()
    losses, predictions, labels, outputs = [], [], [], len(classes)
    loader = split if isinstance(split, ResidentBatches) else DataLoader(split, batch_size)
    for images, label in loader:
        target = label.cpu()
        logits = model(images.to(device)).float().cpu()
        losses.append(F.cross_entropy(logits, target, reduction="none"))
        predictions.append(logits.argmax(1))
        labels.append(target)
        outputs = max(outputs, logits.shape[1])
    if not losses:
        raise ValueError("split must hold at least one image, got none")
    loss = torch.cat(losses)
    # Counts and not torchmetrics' accuracies, which are of single precision; outputs without a class count as wrong.
    counts = multiclass_stat_scores(torch.cat(predictions), torch.cat(labels), outputs, average=None)
    right, support = counts[:, 0].tolist(), counts[:, 4].tolist()
    by_class = [(name, total, hit / total if total else math.nan) for name, hit, total in zip(classes, right, support)]
    return Evaluation(
        len(loss), sum(right) / len(loss), wilson(sum(right), len(loss)), float(loss.mean()),
        normal_interval(loss.double().numpy()), by_class,
    )  # fmt: skip
