"""Accuracy and loss of a trained model with intervals, overall and by class."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from aft_lens.data import ResidentBatches, batches_of
from aft_lens.models import VisionModel
from aft_lens.progress import progress as bar
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
    confusion: list[list[int]]
    """Images by class (rows) and predicted class (columns); outputs without a class are left out."""

    def lines(self) -> list[str]:
        """Accuracy and loss with their intervals, as text."""
        (low, high), (least, most) = self.accuracy_interval, self.loss_interval
        return [
            f"accuracy  {100 * self.accuracy:6.2f} %  [{100 * low:.2f}, {100 * high:.2f}]",
            f"loss      {self.loss:6.4f}    [{least:.4f}, {most:.4f}]",
        ]

    def class_lines(self) -> list[str]:
        """Accuracy by class, as text."""
        return [f"  {name:<20} {100 * accuracy:6.2f} %  of {count}" for name, count, accuracy in self.by_class]

    def __repr__(self) -> str:
        """Accuracy and loss, overall and by class."""
        return "\n".join([f"{self.images} images; intervals 95 %", *self.lines(), *self.class_lines()])


@torch.no_grad()
def evaluate(
    model: VisionModel,
    split: Dataset | ResidentBatches,
    classes: list[str],
    *,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> Evaluation:
    """Classify every image of a split, or of batches in memory; `progress` shows a bar if that takes long.

    Raises ValueError if there are no images.
    """
    model.to(device).eval()
    found: list[tuple[Tensor, Tensor]] = []
    loader = split if isinstance(split, ResidentBatches) else batches_of(split, batch_size, device=device)
    for images, label in bar(loader, "evaluate", shown=progress):
        found.append((model(images.to(device)), label))  # what waits for nothing keeps a GPU busy
    losses, predictions, labels, outputs = [], [], [], len(classes)
    for logits, target in ((each.float().cpu(), label.cpu()) for each, label in found):
        losses.append(F.cross_entropy(logits, target, reduction="none"))
        predictions.append(logits.argmax(1))
        labels.append(target)
        outputs = max(outputs, logits.shape[1])
    if not losses:
        raise ValueError("split must hold at least one image, got none")
    loss = torch.cat(losses)
    taken, given = torch.cat(predictions), torch.cat(labels)
    confusion = torch.bincount(given * outputs + taken, minlength=outputs**2).view(outputs, outputs)
    right, support = confusion.diagonal().tolist(), confusion.sum(1).tolist()  # an output without a class is wrong
    confusion = confusion[: len(classes), : len(classes)]
    by_class = [(name, total, hit / total if total else math.nan) for name, hit, total in zip(classes, right, support)]
    return Evaluation(
        len(loss), sum(right) / len(loss), wilson(sum(right), len(loss)), float(loss.mean()),
        normal_interval(loss.double().numpy()), by_class, confusion.tolist(),
    )  # fmt: skip
