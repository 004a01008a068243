"""What the position biases of all layers of a model answer."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from aft_lens.layers.mixers.aft_conv import AFTConv
from aft_lens.layers.position_bias import PositionBias
from aft_lens.models.vision import VisionModel


def position_biases(model: VisionModel) -> list[Float[Tensor, "..."]]:
    """w of every layer as evaluation computes with it: `h y x` on its window, `t s` for AFT-full and AFT-local."""
    sides = (model.config.window_size,) * 2
    mixers: list[Any] = [block.mixer for block in model.blocks]
    return [mixer.position_bias.dense(sides) for mixer in mixers]


@torch.no_grad()
def directions(model: VisionModel) -> dict[str, Tensor]:
    """What says where w of every AFT-conv layer is large, by the layer's name."""
    return _by_layer(model, lambda bias: bias.direction())


@torch.no_grad()
def biases(model: VisionModel) -> dict[str, Tensor]:
    """w of every AFT-conv layer before sampling, by the layer's name."""
    return _by_layer(model, lambda bias: bias.logits())


def _by_layer(model: VisionModel, ask: Callable[[PositionBias], Tensor | None]) -> dict[str, Tensor]:
    """What every AFT-conv layer's position bias answers, by the layer's name."""
    found = ((name, ask(part.position_bias)) for name, part in model.named_modules() if isinstance(part, AFTConv))
    return {f"{name}.position_bias": w.detach().cpu().clone() for name, w in found if w is not None}
