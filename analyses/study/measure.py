"""What is measured on a trained model: accuracy, also at another size or pruned, and where it looks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from aft_lens.data import DataSource, ResidentBatches, load_data
from aft_lens.extraction import stream_relative
from aft_lens.models import VisionModel, position_biases
from analyses.bias import position_bias_maps
from analyses.explain.causal import Outcome, outcome
from analyses.knockout.edits import edited, no_biases
from analyses.learned.measure import Learned, nearness
from analyses.maps.frame import framed, mean_distance
from analyses.pruning.criteria import score
from analyses.pruning.cutting.compact import masked_model
from analyses.pruning.cutting.masks import select
from analyses.study.record import Places

ATTENTION_IMAGES = 256
"""Test images that a ViT's attention is averaged over, as in the paper."""
BATCH = 500


def scores(model: VisionModel, data: DataSource, device: torch.device) -> Outcome:
    """What a model makes of each test image."""
    return outcome(model.to(device).eval(), ResidentBatches(data, "test", BATCH, device=device))


def accuracy(model: VisionModel, data: DataSource, device: torch.device) -> float:
    """Percent of the test images."""
    return 100 * scores(model, data, device).accuracy


def accuracy_at(model: VisionModel, name: str, root: str | None, device: torch.device) -> dict[str, float]:
    """Accuracy (percent) on images of the data's own size, by that side in pixels."""
    data = load_data(name, root=root)
    return {str(data.img_size): accuracy(model, data, device)}


def accuracy_pruned(
    model: VisionModel, data: DataSource, device: torch.device, keeps: Sequence[int]
) -> dict[str, float]:
    """Accuracy (percent) by offsets a head that are kept, those with the largest |exp(w) - 1|."""
    model = model.cpu()
    if not keeps:
        return {}
    ranks = score(model, "magnitude")
    return {str(keep): accuracy(masked_model(model, select(ranks, keep)), data, device) for keep in keeps}


def places(model: VisionModel, data: DataSource, device: torch.device, found: Learned | None = None) -> Places | None:
    """Where a model looks by offset, on a window around the target; None for one without maps by offset.

    The window is the model's `window_size`, which a ViT's recipe has too, for this comparison. AFT-conv's maps are
    |exp(w) - 1|, a ViT's its border-corrected relative attention over test images. Heads without any distance are
    left out of its mean. `found` is how much of AFT-conv's maps is learned.
    """
    side = min(model.config.window_size, 2 * model.config.grid_size - 1)
    flat = float(mean_distance(np.ones((side, side))))
    if model.config.traits.weights == "attention":
        batches = ResidentBatches(data, "test", 64, device=device)
        images = (image for image, _ in zip(batches, range(-(-ATTENTION_IMAGES // 64))))
        sums = stream_relative(model.to(device), (batch[0] for batch in images))
        maps = framed(sums.average().numpy(), (side, side))
        return Places(_rounded(maps), _distance(maps), flat)
    if model.config.traits.weights != "offset":
        return None
    bias = position_bias_maps(model.cpu())
    maps = np.abs(framed(bias.maps, (side, side)))
    sides = (model.config.window_size,) * 2
    mixers: list[Any] = [block.mixer for block in model.blocks]
    counts = [mixer.position_bias.places(sides).flatten(1).sum(1).float().mean() for mixer in mixers]
    near = nearness(position_biases(model))
    with edited(model, no_biases(model)):
        without = accuracy(model, data, device)
    return Places(
        _rounded(maps), _distance(maps), flat, float(bias.entropy.mean()),
        [float(np.nanmean(layer)) if np.isfinite(layer).any() else None for layer in near],
        float(torch.stack(counts).mean()), found.start_correlation if found else None, without,
    )  # fmt: skip


def _rounded(maps: np.ndarray) -> list[list[float]]:
    """Mean map over layers and heads, with six digits."""
    return [[float(f"{value:.6g}") for value in row] for row in maps.mean((0, 1))]


def _distance(maps: np.ndarray) -> float | None:
    """Mean distance in patches over the heads that have one; None without any."""
    distances = mean_distance(maps)
    return float(np.nanmean(distances)) if np.isfinite(distances).any() else None
