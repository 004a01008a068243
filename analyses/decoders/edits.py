"""Decoders whose position biases are changed for a while."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from aft_lens.layers.position_bias import Free
from aft_lens.models import Decoder
from analyses.decoders.offsets import biases_of


@contextmanager
def kept_offsets(model: Decoder, kept: Sequence[Bool[Tensor, "s"]]) -> Iterator[None]:
    """Inside, each layer's w is 0 but at the offsets that are True for it; what is outside the window is 0 anyway."""
    mixers: list[Any] = [block.mixer for block in model.blocks]
    before = biases_of(model)
    for mixer, bias, keep in zip(mixers, before, kept, strict=True):
        w = bias.dense().detach()
        target = torch.arange(len(w), device=w.device)
        distance = target.unsqueeze(1) - target
        inside = (distance >= 0) & (distance < len(keep))
        mask = keep.to(w.device)[distance.clamp(0, len(keep) - 1)] & inside
        mixer.position_bias = Free(*w.shape).to(w)
        mixer.position_bias.assign(w * mask)
    try:
        yield
    finally:
        for mixer, bias in zip(mixers, before, strict=True):
            mixer.position_bias = bias
