"""How much two sets of features of the same images agree: cosine, linear CKA and nearest neighbours."""

from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from aft_lens.statistics import Interval, normal_interval, percentile_interval

NEIGHBOURS = 10
"""Nearest images by cosine that are compared."""
DRAWS = 200
"""Bootstrap samples of the images for the interval of CKA."""


@dataclass(frozen=True)
class Agreement:
    """Features of an edited model beside those of the intact one, 1 where they are alike; intervals over images."""

    cosine: float
    """Mean over images of the cosine of the two features."""
    cosine_interval: Interval
    cka: float
    """Linear centred kernel alignment (Kornblith et al. 2019), 0 to 1."""
    cka_interval: Interval
    """Percentiles over bootstrap samples of the images."""
    neighbours: float
    """Share of an image's nearest images by cosine that are its nearest in the intact model, mean over images."""
    neighbours_interval: Interval

    def record(self) -> dict[str, float | Interval]:
        """By name."""
        return asdict(self)


def agreement(before: Float[Tensor, "image d"], after: Float[Tensor, "image d"], *, seed: int = 0) -> Agreement:
    """Compare features; ValueError unless there are the same three or more images."""
    if len(before) != len(after) or len(before) < 3:
        raise ValueError(f"features must be of the same 3 images or more, got {len(before)} and {len(after)}")
    before, after = before.double(), after.double()
    cosine = F.cosine_similarity(before, after).numpy()
    shared = _shared(before, after)
    weight = np.random.default_rng(seed).multinomial(len(before), np.full(len(before), 1 / len(before)), DRAWS)
    drawn = _cka(before, after, torch.from_numpy(weight).double())
    low, high = percentile_interval(drawn.numpy()).tolist()
    return Agreement(
        float(cosine.mean()), normal_interval(cosine), linear_cka(before, after), (low, high), float(shared.mean()),
        normal_interval(shared),
    )  # fmt: skip


def linear_cka(before: Float[Tensor, "image d"], after: Float[Tensor, "image e"]) -> float:
    """|Y' X|^2 / (|X' X| |Y' Y|) of centred features, Frobenius norms; 0 where all images have one feature."""
    return float(_cka(before.double(), after.double(), torch.ones(1, len(before), dtype=torch.float64))[0])


def _cka(before: Tensor, after: Tensor, weight: Float[Tensor, "draw image"]) -> Float[Tensor, "draw"]:
    """CKA with every image counted as often as its weight says.

    HSIC with weights w, W their sum, of Gram matrices K and L: w'(K o L)w / W^2 - 2 w'(Kw o Lw) / W^3 +
    (w'Kw)(w'Lw) / W^4, which is that of features centred by their weighted mean.
    """
    grams = [x @ x.T for x in (before - before.mean(0), after - after.mean(0))]
    share = weight / weight.sum(1, keepdim=True)
    means = [share @ gram for gram in grams]  # draw image
    totals = [(mean * share).sum(1) for mean in means]

    def hsic(i: int, j: int) -> Tensor:
        together = ((share @ (grams[i] * grams[j])) * share).sum(1)
        return together - 2 * (share * means[i] * means[j]).sum(1) + totals[i] * totals[j]

    scale = (hsic(0, 0) * hsic(1, 1)).clamp(min=0).sqrt()
    return (hsic(0, 1) / scale).where(scale > 0, 0.0).clamp(0, 1)


def _shared(before: Tensor, after: Tensor) -> Float[np.ndarray, "image"]:
    """By image, the share of the nearest others that both have."""
    count = min(NEIGHBOURS, len(before) - 1)
    near = []
    for features in (before, after):
        unit = F.normalize(features)
        alike = unit @ unit.T
        alike.fill_diagonal_(-torch.inf)
        near.append(torch.zeros_like(alike).scatter(1, alike.topk(count).indices, 1.0))
    return ((near[0] * near[1]).sum(1) / count).numpy()
