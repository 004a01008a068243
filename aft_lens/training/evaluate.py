"""Accuracy and loss of a trained model with intervals, overall and by class."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

from aft_lens.data import ResidentBatches
from aft_lens.models import VisionModel

Z = 1.959964
"""Standard normal quantile of a two-sided 95 % interval."""


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


def wilson(right: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of `right` out of `total`."""
    share, spread = right / total, Z * Z / total
    centre = (share + spread / 2) / (1 + spread)
    half = Z * math.sqrt(share * (1 - share) / total + spread / (4 * total)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


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
    losses, hits, labels = [], [], []
    loader = split if isinstance(split, ResidentBatches) else DataLoader(split, batch_size)
    for images, label in loader:
        target = label.cpu()
        logits = model(images.to(device)).float().cpu()
        losses.append(F.cross_entropy(logits, target, reduction="none"))
        hits.append(logits.argmax(1) == target)
        labels.append(target)
    if not losses:
        raise ValueError("split must hold at least one image, got none")
    loss, hit, label = torch.cat(losses), torch.cat(hits), torch.cat(labels)
    mean, half = float(loss.mean()), Z * float(loss.std()) / math.sqrt(len(loss)) if len(loss) > 1 else math.nan
    by_class = [
        (name, int((label == i).sum()), float(hit[label == i].float().mean())) for i, name in enumerate(classes)
    ]
    right = int(hit.sum())
    return Evaluation(len(hit), right / len(hit), wilson(right, len(hit)), mean, (mean - half, mean + half), by_class)
