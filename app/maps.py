"""Where a model looks, as pages take it: maps by layer and head, with numbers of each head to sort and filter by."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from analyses.maps.head_maps import HeadMaps

STRENGTH, ENTROPY, DISTANCE, PEAK, LEARNED, COST = "strength", "entropy", "distance", "peak", "learned", "cost"
MEASURES: Mapping[str, str] = {
    STRENGTH: "largest |value| of the head's map",
    ENTROPY: "entropy of the head's weights over its map, in nats: 0 is one place, log(places) all alike",
    DISTANCE: "mean distance from the target, in patches",
    PEAK: "share of the head's weight on its strongest place",
    LEARNED: "1 − |correlation| of the raw bias with where it started: 0 is the random draw, 1 all made by training",
    COST: "accuracy lost where the head's bias is set to 0, in points (from a knock-out of every head)",
}
"""Numbers of a head, and what they are."""


@dataclass(frozen=True)
class Looks:
    """A model's maps and the numbers of its heads."""

    maps: HeadMaps
    measures: Mapping[str, Float[np.ndarray, "layer head"]] = field(default_factory=dict)
    note: str = ""
    """What is to be said of them: of how many images, whether training made them."""
    images: int = 0
    """Images that they are averaged over; 0 where they are of the weights alone."""


def numbers_of(maps: HeadMaps, mass: Float[np.ndarray, "layer head y x"]) -> dict[str, np.ndarray]:
    """Strength, entropy and peak of each head; `mass` are its non-negative weights by place."""
    flat = mass.reshape(*mass.shape[:2], -1).astype(float)
    total = flat.sum(-1, keepdims=True)
    share = np.divide(flat, total, out=np.zeros_like(flat), where=total > 0)
    entropy = -(share * np.log(np.maximum(share, 1e-30))).sum(-1)
    found = {
        STRENGTH: np.nanmax(np.abs(np.nan_to_num(maps.values)), (2, 3)),
        ENTROPY: entropy,
        PEAK: share.max(-1),
    }
    return found if maps.distance is None else found | {DISTANCE: maps.distance}
