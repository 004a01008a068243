"""What may become of a position bias w, `h y x`; places that are left out have w = 0, the pooled weight."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from aft_lens.layers.position_bias import Free
from aft_lens.models import VisionModel, position_biases
from analyses.maps.frame import offsets

NEAR = 1.5
"""Patches from the target up to which an offset is near: itself and its eight neighbours."""


def _shuffled(w: Tensor, generator: torch.Generator) -> Tensor:
    order = torch.rand(len(w), w[0].numel(), generator=generator).argsort(1)
    return w.flatten(1).gather(1, order.to(w.device)).reshape(w.shape)


def _shifted(w: Tensor) -> Tensor:
    return F.pad(w, (1, 0))[..., :-1]


def _near(w: Tensor) -> Tensor:
    return w * torch.from_numpy(np.hypot(*offsets(w.shape[1:])) <= NEAR).to(w)


EDITS: Mapping[str, tuple[str, Callable[[Tensor, torch.Generator], Tensor]]] = {
    "zero": ("w = 0", lambda w, generator: torch.zeros_like(w)),
    "shuffled": ("places of each head shuffled", _shuffled),
    "mirrored": ("left and right exchanged", lambda w, generator: w.flip(2)),
    "shifted": ("one patch to the right", lambda w, generator: _shifted(w)),
    "near": (f"kept within {NEAR:g} patches alone", lambda w, generator: _near(w)),
    "far": (f"kept beyond {NEAR:g} patches alone", lambda w, generator: w - _near(w)),
}
"""By name: in words, and what becomes of w, `h y x`; places that are left out have w = 0, the pooled weight."""


def no_biases(model: VisionModel) -> dict[int, Float[Tensor, "h y x"]]:
    """w = 0 for every AFT-conv layer, to compute with while `edited`."""
    return {layer: torch.zeros_like(w) for layer, w in enumerate(position_biases(model))}


@contextmanager
def edited(model: VisionModel, biases: Mapping[int, Float[Tensor, "h y x"]]) -> Iterator[None]:
    """Inside, AFT-conv layers of these numbers compute with these biases."""
    mixers: list[Any] = [block.mixer for block in model.blocks]
    kept = {layer: mixers[layer].position_bias for layer in biases}
    for layer, w in biases.items():
        mixers[layer].position_bias = Free(*w.shape).to(w)
        mixers[layer].position_bias.assign(w)
    try:
        yield
    finally:
        for layer, bias in kept.items():
            mixers[layer].position_bias = bias
