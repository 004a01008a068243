"""What the position biases of all layers of a model answer."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aft_lens.layers.mixers.aft_conv import AFTConv
from aft_lens.layers.position_bias import PositionBias
from aft_lens.models.vision import VisionModel


def conv_layers(model: nn.Module) -> list[AFTConv]:
    """Every AFT-conv layer, in the order of the model's modules; the model is ours, or one that they were put into."""
    return [part for part in model.modules() if isinstance(part, AFTConv)]


def conv_biases(layers: Sequence[AFTConv]) -> list[Float[Tensor, "h y x"]]:
    """w of AFT-conv layers of any model on one window, as evaluation computes with it.

    Kept offsets are laid out on the window of the other layers, or on the smallest that holds them all. Raises
    ValueError where heads or windows of the layers are not the same.
    """
    found = [layer.position_bias for layer in layers]
    sides = [max(of) for of in zip(*map(_sides, found), strict=True)]
    maps = [bias.dense(sides) for bias in found]
    shapes = list(dict.fromkeys(tuple(w.shape) for w in maps))
    if len(shapes) > 1:
        raise ValueError(
            f"AFT-conv layers must have the same heads and window to be read together, got {shapes} (heads, rows, "
            "columns); give the layers that are alike, e.g. nn.Sequential(*blocks[:6])"
        )
    return maps


def _sides(bias: PositionBias) -> tuple[int, ...]:
    """Sides of a bias's window; of kept offsets, those of the smallest that holds them."""
    if bias.offset is None:
        return tuple(bias.dense().shape[1:])
    far = bias.offset.abs().flatten(0, 1)
    return tuple(2 * int(side) + 1 for side in (far.amax(0) if len(far) else far.new_zeros(far.shape[1])))


def position_biases(model: VisionModel) -> list[Float[Tensor, "..."]]:
    """w of every layer as evaluation computes with it: `h y x` on its window, `t s` for AFT-full and AFT-local."""
    sides = (model.config.window_size,) * 2
    mixers: list[Any] = [block.mixer for block in model.blocks]
    return [mixer.position_bias.dense(sides) for mixer in mixers]


@torch.no_grad()
def directions(model: nn.Module) -> dict[str, Tensor]:
    """What says where w of every AFT-conv layer is large, by the layer's name."""
    return _by_layer(model, lambda bias: bias.direction())


@torch.no_grad()
def biases(model: nn.Module) -> dict[str, Tensor]:
    """w of every AFT-conv layer before sampling, by the layer's name."""
    return _by_layer(model, lambda bias: bias.logits())


def _by_layer(model: nn.Module, ask: Callable[[PositionBias], Tensor | None]) -> dict[str, Tensor]:
    """What every AFT-conv layer's position bias answers, by the layer's name."""
    found = ((name, ask(part.position_bias)) for name, part in model.named_modules() if isinstance(part, AFTConv))
    return {f"{name}.position_bias": w.detach().cpu().clone() for name, w in found if w is not None}
