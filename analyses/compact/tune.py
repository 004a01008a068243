"""A compact model trained further: to give its original's features, or its labels' classes, with what is left of it."""

import copy
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from aft_lens.models import VisionModel
from aft_lens.progress import progress as bar
from analyses.pruning.measuring.cost import Batches

To = Literal["features", "labels"]


@dataclass(frozen=True)
class Tuning:
    """How a compact model is trained further. Raises ValueError on values that cannot be run."""

    to: To
    """"features": distillation; the mean squared error of the intact model's features, over their variance. "labels":
    fine-tuning; the cross entropy of the data's classes."""
    epochs: int = 2
    """Passes over the training images."""
    rate: float = 1e-4
    """AdamW's learning rate, falling to 0 along a cosine."""

    def __post_init__(self) -> None:
        if self.epochs < 1 or not self.rate > 0:
            raise ValueError(f"epochs must be 1 or more and rate above 0, got {self.epochs} and {self.rate:g}")

    @property
    def words(self) -> str:
        """What became of the model."""
        return "distilled" if self.to == "features" else "fine-tuned"


def tuned(
    model: VisionModel, intact: VisionModel, batches: Batches, tuning: Tuning, *, seed: int = 0, progress: bool = False
) -> VisionModel:
    """A copy of a compact model, trained on images `b c y x` (and labels) that it is not measured on.

    `intact` is the model that it was made of. Images come in an order drawn by `seed`; which offsets a head reads stays
    as it is. Raises ValueError on no images.
    """
    if not batches:
        raise ValueError("batches must hold at least one image to train on, got none")
    device = model.pos_embed.device
    found = copy.deepcopy(model).requires_grad_()
    weights = [parameter for parameter in found.parameters() if parameter.is_floating_point()]
    optimizer = torch.optim.AdamW(weights, tuning.rate, weight_decay=0.0)
    steps = tuning.epochs * len(batches)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    with torch.no_grad():
        targets = [intact.features(images.to(device)).float() for images, _ in batches]
        spread = torch.cat(targets).var(0, correction=0).mean()
    generator = torch.Generator().manual_seed(seed)
    order = [int(i) for _ in range(tuning.epochs) for i in torch.randperm(len(batches), generator=generator)]
    for number in bar(order, tuning.words, shown=progress):
        images, labels = batches[number]
        features = found.features(images.to(device))
        loss: Tensor
        if tuning.to == "features":
            loss = F.mse_loss(features, targets[number]) / spread
        else:
            loss = F.cross_entropy(found.head(features), labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return found.eval().requires_grad_(False)
