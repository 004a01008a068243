"""Eq. 9's entropy of position biases and the temperature schedules of Eq. 10."""

import math
from collections.abc import Callable

from torch import Tensor, nn

from aft_lens.layers.mixers.aft_conv import AFTConv
from aft_lens.layers.position_bias import PositionBias
from aft_lens.training.recipe import SparsityRecipe


def bias_entropy(model: nn.Module) -> list[Tensor]:
    """Entropy of softmax(w) of each head in nats, a tensor of h a layer; empty without AFT-conv (Eq. 9)."""
    return _answers(model, lambda bias: bias.entropy())


def expected_positions(model: nn.Module) -> list[Tensor]:
    """Expected number of open gates of each head, a tensor of h a layer; empty where no bias has gates."""
    return _answers(model, lambda bias: bias.expected_positions())


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


def _answers(model: nn.Module, ask: Callable[[PositionBias], Tensor | None]) -> list[Tensor]:
    """What every AFT-conv layer's position bias answers, those left out that have no answer."""
    found = (ask(module.position_bias) for module in model.modules() if isinstance(module, AFTConv))
    return [answer for answer in found if answer is not None]
