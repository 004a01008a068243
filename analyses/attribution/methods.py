"""Attributions that commands and the app show, by name: of a class's logit to the pixels of normalised images."""

from collections.abc import Callable

import torch
from captum.attr import IntegratedGradients, Saliency
from jaxtyping import Float, Int
from torch import Tensor, nn

Attribute = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""Given a model, images `b c y x` and a class each, `b`: what speaks for the class, `b y x`."""
STEPS = 32
"""Of the integral in integrated gradients."""
FED = 32
"""Images that go through the model at once."""


def integrated_gradients(
    model: nn.Module, images: Float[Tensor, "b c y x"], classes: Int[Tensor, "b"]
) -> Float[Tensor, "b y x"]:  # fmt: skip
    """Integrated gradients of the logit from a grey image, summed over channels: what `keys` shows."""
    found = IntegratedGradients(model).attribute(images, target=classes, n_steps=STEPS, internal_batch_size=FED)
    return found.sum(1).detach()


def saliency(
    model: nn.Module, images: Float[Tensor, "b c y x"], classes: Int[Tensor, "b"]
) -> Float[Tensor, "b y x"]:  # fmt: skip
    """|gradient| of the logit, summed over channels: what `receptive_field` takes, of tokens, for a target's logit."""
    with torch.enable_grad():
        return Saliency(model).attribute(images.clone().requires_grad_(), target=classes).sum(1).detach()


METHODS: dict[str, Attribute] = {"integrated_gradients": integrated_gradients, "saliency": saliency}
