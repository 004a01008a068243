"""What is measured on a trained model: accuracy, also at other sizes, and where it looks."""

from collections.abc import Sequence

import numpy as np
import torch

from aft_lens.data import DataSource, ResidentBatches, load_data
from aft_lens.extraction import stream_relative
from aft_lens.models import VisionModel
from aft_lens.training import evaluate
from analyses.bias import position_bias_maps
from analyses.maps.frame import framed, mean_distance
from analyses.study.record import Places, Scores

ATTENTION_IMAGES = 256
"""Test images that a ViT's attention is averaged over, as in the paper."""


def scores(model: VisionModel, data: DataSource, device: torch.device) -> Scores:
    """Accuracy and loss on the test split."""
    result = evaluate(model, ResidentBatches(data, "test", 250, device=device), data.classes, device=device)
    return Scores(100 * result.accuracy, result.loss)


def scores_by_size(
    model: VisionModel, data: DataSource, root: str | None, device: torch.device, multiples: Sequence[float]
) -> dict[str, float]:
    """Accuracy (percent) by side in pixels of resized test images."""
    patch = model.config.patch_size
    sides = [round(multiple * data.img_size / patch) * patch for multiple in multiples]
    return {str(side): scores(model, load_data(data.name, root=root, img_size=side), device).accuracy for side in sides}


def places(model: VisionModel, data: DataSource, device: torch.device) -> Places | None:
    """Where a model looks by offset, on a window around the target; None for one without maps by offset.

    The window is the model's `window_size`, which a ViT's recipe has too, for this comparison. AFT-conv's maps are
    |exp(w) - 1|, a ViT's its border-corrected relative attention over test images. Heads without any distance are
    left out of its mean.
    """
    side, entropy = min(model.config.window_size, 2 * model.config.grid_size - 1), None
    if model.config.traits.weights == "attention":
        batches = ResidentBatches(data, "test", 64, device=device)
        images = (image for image, _ in zip(batches, range(-(-ATTENTION_IMAGES // 64))))
        sums = stream_relative(model, (batch[0] for batch in images))
        maps = framed(sums.average().numpy(), (side, side))
    elif model.config.traits.weights == "offset":
        bias = position_bias_maps(model.cpu())
        maps = np.abs(framed(bias.maps, (side, side)))
        entropy = float(bias.entropy.mean())
    else:
        return None
    mean, flat = np.round(maps.mean((0, 1)), 7).tolist(), np.ones((side, side))
    return Places(mean, float(np.nanmean(mean_distance(maps))), float(mean_distance(flat)), entropy)
