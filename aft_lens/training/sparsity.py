"""Eq. 9's entropy of position biases and the temperature schedules of Eq. 10."""

import math

import torch
from torch import Tensor, nn

from aft_lens.layers.mixers.aft_conv import AFTConv
from aft_lens.layers.position_bias import Indexed, SinglePosition
from aft_lens.training.recipe import SparsityRecipe


def raw_bias(mixer: AFTConv) -> Tensor | None:
    """w of a mixer before any sampling, shape `h *window`; None where it is indexed already."""
    bias = mixer.position_bias
    if isinstance(bias, Indexed):
        return None
    return bias.inner() if isinstance(bias, SinglePosition) else bias()


def bias_entropy(model: nn.Module) -> list[Tensor]:
    """Entropy of softmax(w) of each head in nats, a tensor of h a layer; empty without AFT-conv (Eq. 9)."""
    biases = (raw_bias(module) for module in model.modules() if isinstance(module, AFTConv))
    logs = [torch.log_softmax(w.float().flatten(1), dim=1) for w in biases if w is not None]
    return [-(log.exp() * log).sum(1) for log in logs]


def scheduled_temperature(recipe: SparsityRecipe, start: float, progress: float) -> float:
    """Temperature after a share `progress` in [0, 1] of the run, from `start` to the recipe's end."""
    end = recipe.temperature_end
    if recipe.temperature_schedule == "fixed":
        return start
    if recipe.temperature_schedule == "linear":
        return start + (end - start) * progress
    if recipe.temperature_schedule == "cosine":
        return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))
    return start * (end / start) ** progress
