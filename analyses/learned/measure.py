"""How much of each head's map is learned: its correlation with the start, and where it is strongest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor, nn

from aft_lens.later import later
from aft_lens.models import directions
from analyses.maps.frame import offsets
from analyses.result import mean_cell

if TYPE_CHECKING:
    from scipy import stats
else:
    stats = later("scipy.stats")

MOSTLY = 0.5
"""Mean |correlation| with the start from which a map is called its start rather than learned."""
FIRST_LAYERS = 2
"""Whose biases are asked whether they are near."""
FLAT = 1e-9
"""Deviation of a map below which nothing correlates with it."""


@dataclass(frozen=True)
class Learned:
    """Position biases against where they started, by layer and head."""

    correlation: Float[np.ndarray, "layer head"]
    """Pearson correlation over the window of the raw bias (Eq. 8's w') now and before any step: 1 is the draw itself,
    0 one that training has made; NaN where either is flat."""
    strongest_stayed: Bool[np.ndarray, "layer head"]
    """Whether the offset with the largest |w - mean| is the one that the start had there."""
    chance: float
    """Share of heads whose strongest offset would be the start's by chance: one place of the window."""

    @property
    def start_correlation(self) -> float:
        """Mean |correlation| over heads."""
        return float(np.nanmean(np.abs(self.correlation)))

    @property
    def stayed(self) -> float:
        """Share of heads whose strongest offset is the start's."""
        return float(self.strongest_stayed.mean())

    @property
    def words(self) -> str:
        """What is to be said beside the maps: whose they mostly are."""
        whose = "mostly their random start" if self.start_correlation > MOSTLY else "made by training"
        return f"{whose} (|r| with the start {self.start_correlation:.2f})"

    def cells(self, layer: int) -> list[str]:
        """A layer's mean |correlation|, and its share of heads with the start's strongest offset."""
        return [mean_cell(np.abs(self.correlation[layer]), 2), f"{100 * self.strongest_stayed[layer].mean():.0f} %"]

    def record(self) -> dict[str, Any]:
        """All of it."""
        return {
            "start_correlation": self.start_correlation,
            "strongest_stayed": self.stayed,
            "strongest_stayed_chance": self.chance,
            "correlation": self.correlation,
        }


def learned(model: nn.Module, first: Mapping[str, Tensor]) -> Learned | None:
    """Compare a model's biases with `read_first` of its run; None where the run kept no start or places are frozen."""
    now = directions(model)
    if not first or now.keys() != first.keys():
        return None
    before, after = (np.stack([_centred(ws[name]) for name in now]) for ws in (first, now))
    size = np.sqrt((before**2).sum(-1) * (after**2).sum(-1))
    correlation = np.divide((before * after).sum(-1), size, out=np.full(size.shape, np.nan), where=size > FLAT)
    stayed = np.abs(before).argmax(-1) == np.abs(after).argmax(-1)
    return Learned(correlation, stayed, 1 / before.shape[-1])


def nearness(biases: Sequence[Float[Tensor, "h y x"]]) -> Float[np.ndarray, "layer head"]:
    """Spearman's rank correlation over the window of w with nearness (minus the distance); NaN for a flat w."""
    rows = []
    for w in biases:
        near = -np.hypot(*offsets(w.shape[1:])).ravel()
        flat = w.detach().double().cpu().flatten(1).numpy()
        rows.append([stats.spearmanr(head, near).statistic if head.std() > FLAT else np.nan for head in flat])
    return np.array(rows)


def _centred(w: Tensor) -> Float[np.ndarray, "h places"]:
    """Each head's bias less its mean, flattened."""
    flat = w.detach().double().cpu().flatten(1)
    return (flat - flat.mean(1, keepdim=True)).numpy()
