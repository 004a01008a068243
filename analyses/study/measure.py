"""What is measured on a trained model: accuracy, also at other sizes, and where it looks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from aft_lens.data import DataSource, ResidentBatches, load_data
from aft_lens.extraction import stream_relative
from aft_lens.models import VisionModel
from aft_lens.training import evaluate
from analyses.bias import position_bias_maps
from analyses.maps.frame import framed, mean_distance

ATTENTION_IMAGES = 256
"""Test images that a ViT's attention is averaged over, as in the paper."""


def scores(model: VisionModel, data: DataSource, device: torch.device) -> dict[str, float]:
    """Accuracy (percent) and loss (nats) on the test split."""
    result = evaluate(model, ResidentBatches(data, "test", 250, device=device), data.classes, device=device)
    return {"accuracy": 100 * result.accuracy, "loss": result.loss}


def scores_by_size(
    model: VisionModel, data: DataSource, root: str | None, device: torch.device, multiples: Sequence[float]
) -> dict[str, float]:
    """Accuracy (percent) by side in pixels of resized test images."""
    patch = model.config.patch_size
    sides = [round(multiple * data.img_size / patch) * patch for multiple in multiples]
    return {
        str(side): scores(model, load_data(data.name, root=root, img_size=side), device)["accuracy"] for side in sides
    }


def places(model: VisionModel, data: DataSource, device: torch.device) -> dict[str, Any]:
    """Where a model looks by offset, on a window around the target; empty for AFT-full.

    The window is the model's `window_size`, which a ViT's recipe has too, for this comparison.

    For AFT-conv, |exp(w) - 1|; for a ViT, its border-corrected relative attention over test images. `map` is the
    mean over layers and heads, `distance` the mean distance in patches with each head's map as weights (heads
    without any left out), `uniform_distance` that of a flat map, `entropy` (AFT-conv) the mean entropy of
    softmax(w) in nats.
    """
    side = min(model.config.window_size, 2 * model.config.grid_size - 1)
    if model.config.traits.weights == "attention":
        batches = ResidentBatches(data, "test", 64, device=device)
        images = (image for image, _ in zip(batches, range(-(-ATTENTION_IMAGES // 64))))
        sums = stream_relative(model, (batch[0] for batch in images))
        maps = framed(sums.average().numpy(), (side, side))
        entropy = None
    elif model.config.traits.weights == "offset":
        bias = position_bias_maps(model.cpu())
        maps = np.abs(framed(bias.maps, (side, side)))
        entropy = float(bias.entropy.mean())
    else:
        return {}
    return {
        "map": np.round(maps.mean((0, 1)), 7).tolist(),
        "distance": float(np.nanmean(mean_distance(maps))),
        "uniform_distance": float(mean_distance(np.ones((side, side)))),
        **({} if entropy is None else {"entropy": entropy}),
    }
