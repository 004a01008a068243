"""The heads of a model as one list of maps on a frame that it shares with another model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from analyses.maps.frame import framed
from analyses.offset_maps import OffsetMaps

Frame = Literal["crop", "pad"]
FLAT = 1e-6
"""Standard deviation of the relative weights below which a map is flat and has no correlation."""


@dataclass(frozen=True)
class Heads:
    """The heads of a model that have a shape on the common frame."""

    label: str
    places: tuple[tuple[int, int], ...]
    """(layer, head) of each."""
    maps: Float[np.ndarray, "n y x"]
    """Weight relative to a uniform share, minus 1."""
    flat: tuple[tuple[int, int], ...]
    """(layer, head) of those left out: flat on the frame."""
    shape: tuple[int, int]
    """Layers and heads of the model."""
    kept: float
    """Mean share of a head's |weight - uniform| that the frame keeps."""


def common_frame(first: OffsetMaps, second: OffsetMaps, framing: Frame = "crop") -> tuple[int, int]:
    """The frame that both maps are put on: the offsets that both have ("crop") or that either has ("pad")."""
    choose = min if framing == "crop" else max
    rows, columns = (choose(a, b) for a, b in zip(first.excess.shape[2:], second.excess.shape[2:], strict=True))
    return rows, columns


def shaped_heads(maps: OffsetMaps, frame: Sequence[int]) -> Heads:
    """The heads of a model on a frame, flat ones apart; filled with `OffsetMaps.beyond` where the frame is larger.

    Raises ValueError if all are flat.
    """
    layers, heads = maps.excess.shape[:2]
    on_frame = framed(maps.excess, frame, maps.beyond).reshape(layers * heads, *frame)
    places = [(layer, head) for layer in range(layers) for head in range(heads)]
    shaped = on_frame.std((1, 2)) > FLAT
    if not shaped.any():
        raise ValueError(f"{maps.label}: every head is flat on the frame of {tuple(frame)} offsets; nothing to match")
    whole = np.abs(maps.excess).sum((2, 3)).ravel()[shaped]
    kept = np.abs(framed(maps.excess, frame)).sum((2, 3)).ravel()[shaped] / whole
    return Heads(
        maps.label,
        tuple(place for place, keep in zip(places, shaped, strict=True) if keep),
        on_frame[shaped],
        tuple(place for place, keep in zip(places, shaped, strict=True) if not keep),
        (layers, heads),
        float(kept.mean()),
    )
