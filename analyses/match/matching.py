"""The optimal pairs of two models' heads, and how alike such pairs would be by chance."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from aft_lens.progress import progress
from aft_lens.statistics import percentile_interval, permutation_p
from analyses.assignment import assign, exchangeable, relabelling
from analyses.match.heads import Heads
from analyses.match.likeness import MEASURES, likeness

NULLS = {
    "moves": "all maps of the second model moved and turned together, around the edges: keeps their smoothness and "
    "what they have in common; do the models share places at all?",
    "rings": "offsets exchanged among those equally far from the target, alike in all maps of the second model: "
    "keeps how far each head looks; do the models share more than a taste for distances?",
}
MOST_TRANSPORTS, LEAST_DRAWS = 1_000_000, 19
"""Earth mover's distances computed for a baseline (0.1 ms each), and the fewest draws, for a p-value of 0.05."""


@dataclass(frozen=True)
class Baseline:
    """What the matched likeness would be by chance."""

    null: str
    """One of `NULLS`."""
    draws: Float[np.ndarray, "draws"]
    """Mean likeness of the best pairs in each draw."""
    interval: tuple[float, float]
    """2.5 and 97.5 percentile of the draws."""
    p_value: float
    """Share of the draws, counting the data, whose pairs are as alike as the data's."""


@dataclass(frozen=True)
class Matching:
    """The optimal pairs under one measure."""

    measure: str
    """"correlation" (higher is more alike) or "earth mover's distance" (patches, lower is more alike)."""
    pairs: tuple[tuple[int, int], ...]
    """Numbers of the paired heads in the two models' lists of heads, the most alike first."""
    scores: tuple[float, ...]
    mean: float
    baselines: tuple[Baseline, ...]


def match(first: Heads, second: Heads, measure: str, *, draws: int = 200, seed: int = 0) -> Matching:
    """Pair the heads of two models one to one with the highest total likeness, and test the pairs against chance.

    Every head of the model with fewer gets a partner. An optimal assignment does not change when heads are exchanged,
    so permuting heads would test nothing; the baselines (`NULLS`) exchange offsets, in all maps of the second model
    alike, because its heads resemble each other and are no independent draws. Exchanging all offsets freely would
    break up smooth maps and make any two smooth models look related: "moves" (cyclic shifts and, on a square frame,
    the 8 turns and mirrorings) keeps them smooth. "rings" does not quite: where its p is small and that of "moves" is
    not, distrust it. Each draw is matched anew; between many heads, the earth mover's baselines take fewer draws
    (`MOST_TRANSPORTS`). Raises ValueError on an unknown measure or fewer than 1 draw.
    """
    if measure not in MEASURES:
        raise ValueError(f"measure must be one of {MEASURES}, got {measure!r}")
    if draws < 1:
        raise ValueError(f"draws must be 1 or more, got {draws}")
    scores = likeness(first.maps, second.maps, measure)
    rows, columns = assign(scores)
    observed = float(scores[rows, columns].mean())
    if measure != "correlation":
        draws = min(draws, max(LEAST_DRAWS, MOST_TRANSPORTS // scores.size))
    baselines = []
    for null in NULLS:
        generator = np.random.default_rng(seed)
        chance = np.empty(draws)
        for number in progress(range(draws), f"{measure}, {null}", patience=0.0):
            drawn = likeness(first.maps, exchanged(second.maps, null, generator), measure)
            chance[number] = drawn[assign(drawn)].mean()
        p_value = permutation_p(observed, chance, tolerance=1e-12)
        chance = chance if measure == "correlation" else -chance
        low, high = percentile_interval(chance)
        baselines.append(Baseline(null, chance, (float(low), float(high)), p_value))
    order = np.argsort(-scores[rows, columns], kind="stable")
    sign = 1.0 if measure == "correlation" else -1.0
    return Matching(
        measure,
        tuple((int(rows[i]), int(columns[i])) for i in order),
        tuple(sign * float(scores[rows[i], columns[i]]) for i in order),
        sign * observed,
        tuple(baselines),
    )


def exchanged(maps: Float[np.ndarray, "n y x"], null: str, generator: np.random.Generator) -> np.ndarray:
    """All maps with their offsets exchanged alike, as a null of `NULLS` says."""
    sides = maps.shape[1:]
    if null == "rings":
        order = relabelling(exchangeable(sides, "rings"), generator)
        return maps.reshape(len(maps), -1)[:, order].reshape(maps.shape)
    moved = np.roll(maps, tuple(generator.integers(side) for side in sides), (1, 2))
    quarter = 1 if sides[0] == sides[1] else 2
    turned = np.rot90(moved, quarter * int(generator.integers(4 // quarter)), (1, 2))
    return turned[:, ::-1] if generator.integers(2) else turned
