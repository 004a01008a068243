"""Which heads are drawn, and in what order: all of them can be reached, sorted and filtered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from app.maps import COST, LEARNED, MEASURES, STRENGTH, Looks
from app.workspace import PLACE

MOST_TILES = 192
"""Maps drawn at once; more are reached by their window."""
MOST_ACROSS = 16
"""Heads of each layer drawn at once where whole layers are rows, as in the paper's figures."""
FALLING = (STRENGTH, LEARNED, COST, "peak")
"""Measures of which the largest come first; of the others the smallest do."""
HALF_LEARNED = 0.5
ACTIVE = 0.05
"""Share of the model's median strength below which a head is taken to do nothing, where its analysis does not say."""


@dataclass(frozen=True)
class Window:
    """What is drawn of a model's heads."""

    tiles: list[tuple[int, int]]
    """(layer, head) in order."""
    by_layer: bool
    """Whether rows are layers."""
    first: int
    """Place of the first one, among the heads of a layer or in the order."""
    step: int
    """How far the next window is."""
    total: int
    """How many places there are."""

    @property
    def words(self) -> str:
        """What is drawn, in words."""
        what = "heads of each layer" if self.by_layer else "heads in this order"
        last = min(self.first + self.step, self.total)
        return f"{what} {self.first} to {last - 1} of {self.total}" if self.total > self.step else ""


def chosen_heads(
    looks: Looks, *, sort: str, show: str, first: int, cost: Float[np.ndarray, "layer head"] | None = None
) -> Window:
    """The window of heads by order and filter; ValueError in words where it needs what is not there."""
    layers, heads = looks.maps.layers, looks.maps.heads
    measures: Mapping[str, np.ndarray] = looks.measures if cost is None else {**looks.measures, COST: cost}
    passing = _passing(looks, show)
    if sort == PLACE and passing.all():
        start = min(first - first % MOST_ACROSS, max(0, heads - 1)) if heads > MOST_ACROSS else 0
        across = range(start, min(start + MOST_ACROSS, heads))
        return Window([(n, h) for n in range(layers) for h in across], True, start, MOST_ACROSS, heads)
    places = [(int(n), int(h)) for n, h in np.argwhere(passing)]
    if sort != PLACE:
        if sort not in measures:
            raise ValueError(
                f"these heads have no {sort} ({MEASURES[sort]}); "
                + ("measure every head on Knock-out first" if sort == COST else "choose another order")
            )
        sign = -1.0 if sort in FALLING else 1.0
        places.sort(key=lambda place: (np.nan_to_num(sign * measures[sort][place], nan=np.inf), place))
    start = min(first - first % MOST_TILES, max(0, len(places) - 1)) if len(places) > MOST_TILES else 0
    return Window(places[start : start + MOST_TILES], False, start, MOST_TILES, len(places))


def _passing(looks: Looks, show: str) -> np.ndarray:
    """Which heads pass the filter."""
    every = np.ones((looks.maps.layers, looks.maps.heads), bool)
    if show == "active":
        if looks.maps.idle is not None:
            return ~looks.maps.idle
        strength = looks.measures[STRENGTH]
        return strength > ACTIVE * np.median(strength)
    if show == "learned" and LEARNED in looks.measures:
        return looks.measures[LEARNED] > HALF_LEARNED
    return every


def paired(
    first: Window, pairs: Sequence[Sequence[float]], heads: tuple[int, int]
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The heads of the first model that have a partner, and their partners, place by place.

    `pairs` are (layer, head, layer, head, likeness); `heads` are the second model's layers and heads.
    """
    partner = {(int(pair[0]), int(pair[1])): (int(pair[2]), int(pair[3])) for pair in pairs}
    own = [tile for tile in first.tiles if tile in partner and _inside(partner[tile], heads)]
    return own, [partner[tile] for tile in own]


def _inside(place: tuple[int, int], heads: tuple[int, int]) -> bool:
    return place[0] < heads[0] and place[1] < heads[1]
