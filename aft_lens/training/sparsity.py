"""Eq. 9's entropy of position biases and the temperature schedules of Eq. 10."""

import math

from torch import Tensor, nn

from aft_lens.layers.mixers.aft_conv import AFTConv
from aft_lens.training.recipe import SparsityRecipe


def bias_entropy(model: nn.Module) -> list[Tensor]:
    """Entropy of softmax(w) of each head in nats, a tensor of h a layer; empty without AFT-conv (Eq. 9)."""
    found = (module.position_bias.entropy() for module in model.modules() if isinstance(module, AFTConv))
    return [entropy for entropy in found if entropy is not None]


def expected_positions(model: nn.Module) -> list[Tensor]:
    """Expected number of open gates of each head, a tensor of h a layer; empty where no bias has gates."""
    found = (module.position_bias.expected_positions() for module in model.modules() if isinstance(module, AFTConv))
    return [count for count in found if count is not None]


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
