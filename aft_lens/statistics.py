"""Every interval and p-value of the project, by scipy.stats where it has them. All intervals are 95 %.

Written by hand, as no library here has them: Agresti and Min's interval of paired proportions, the interval of two
means whose deviation is pooled over more groups than the two, and the p-value of draws that are made already (SciPy's
permutation test makes its own).
"""

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

from aft_lens.later import later

if TYPE_CHECKING:
    from scipy import stats
else:
    stats = later("scipy.stats")

LEVEL = 0.95
"""Confidence of every interval."""
TAILS = (50 * (1 - LEVEL), 50 * (1 + LEVEL))
"""Percentiles of a 95 % interval."""
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
"""Standard normal quantile of a two-sided 95 % interval."""
Interval = tuple[float, float]
IMAGE_CHUNK = 500
"""Draws of test images that are made at a time."""


def wilson(right: int, total: int) -> Interval:
    """Wilson's score interval of the share `right` out of `total`; ValueError without any."""
    if total < 1:
        raise ValueError(f"total must be 1 or more for an interval, got {total}")
    found = stats.binomtest(right, total).proportion_ci(LEVEL, method="wilson")
    return float(found.low), float(found.high)


def normal_interval(values: Float[np.ndarray, "n"]) -> Interval:
    """Mean plus and minus 1.96 standard errors (n - 1 in the deviation), in double precision; NaN for one value."""
    if len(values) < 2:
        return math.nan, math.nan
    values = np.asarray(values, np.float64)
    mean, half = float(values.mean()), Z * float(stats.sem(values))
    return mean - half, mean + half


def student_interval(values: Sequence[float]) -> Interval:
    """Interval of the mean of few values (seeds), by Student's t; NaN for one value."""
    if len(values) < 2:
        return math.nan, math.nan
    return _by_student(fmean(values), float(stats.sem(values)), len(values) - 1)


def pooled_deviation(groups: Sequence[Sequence[float]]) -> tuple[float, int]:
    """Standard deviation within groups, pooled, and its degrees of freedom (0 without any)."""
    degrees = sum(len(group) - 1 for group in groups)
    squares = sum((value - fmean(group)) ** 2 for group in groups for value in group)
    return (math.sqrt(squares / degrees) if degrees else math.nan), degrees


def unpaired_interval(first: Sequence[float], second: Sequence[float], pooled: tuple[float, int]) -> Interval:
    """Interval of the difference first - second of the means of independent runs.

    Each group's deviation is its own or the `pooled_deviation`, whichever is larger (of one run, the pooled one);
    Student's quantile has the pooled degrees of freedom. NaN without any.
    """
    deviation, degrees = pooled
    if degrees < 1:
        return math.nan, math.nan
    own = [max(deviation, stdev(group)) if len(group) > 1 else deviation for group in (first, second)]
    error = math.sqrt(sum(spread**2 / len(group) for spread, group in zip(own, (first, second))))
    return _by_student(fmean(first) - fmean(second), error, degrees)


def bootstrap_interval(values: Float[np.ndarray, "images"], *, draws: int = 2000, seed: int = 0) -> Interval:
    """Percentile interval of the mean over images drawn with replacement; one image has no spread.

    Raises ValueError without any image.
    """
    if not len(values):
        raise ValueError("values must be of one image or more, got none")
    if len(values) < 2:
        return float(values[0]), float(values[0])
    found = stats.bootstrap(
        (values,), np.mean, n_resamples=draws, confidence_level=LEVEL, method="percentile", vectorized=True,
        rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return float(found.low), float(found.high)


def paired_bootstrap(before: Bool[np.ndarray, "images"], after: Bool[np.ndarray, "images"]) -> tuple[float, Interval]:
    """Accuracy after minus before on the same images, and its bootstrap interval (images drawn in pairs)."""
    if before.shape != after.shape:
        raise ValueError(f"before and after must be the same images, got {before.shape} and {after.shape}")
    change = after.astype(float) - before.astype(float)
    return float(change.mean()), bootstrap_interval(change)


def paired_proportions(before: Bool[np.ndarray, "images"], after: Bool[np.ndarray, "images"]) -> Interval:
    """Interval of the accuracy after minus before on the same images: Agresti and Min (2005).

    Wald's interval with half an image added to each cell of the paired table, so that no changed image does not mean
    no uncertainty.
    """
    gained = int((after & ~before).sum()) + 0.5
    lost = int((before & ~after).sum()) + 0.5
    padded = len(before) + 2
    centre = (gained - lost) / padded
    half = Z * math.sqrt(gained + lost - (gained - lost) ** 2 / padded) / padded
    return max(-1.0, centre - half), min(1.0, centre + half)


def percentile_interval(draws: Float[np.ndarray, "draw *n"]) -> Float[np.ndarray, "2 *n"]:
    """The 2.5 and 97.5 percentile over draws (the first axis)."""
    return np.percentile(draws, TAILS, axis=0)


def jackknife(left_out: Float[np.ndarray, "part"]) -> tuple[float, Interval]:
    """Mean and 95 % interval of a number from its values with each part left out in turn, by Student's t."""
    parts, value = len(left_out), float(left_out.mean())
    if parts < 2:
        return value, (np.nan, np.nan)
    error = np.sqrt((parts - 1) / parts * ((left_out - value) ** 2).sum())
    return value, _by_student(value, float(error), parts - 1)


def permutation_p(observed: float, chance: Float[np.ndarray, "draws"], *, tolerance: float = 0.0) -> float:
    """Share of random draws, counting the data, that are as high as the observed value (one-sided).

    `tolerance` is how much lower a draw may be by rounding and still count.
    """
    return float((1 + (chance >= observed - tolerance).sum()) / (1 + len(chance)))


def image_resamples(
    right: Bool[np.ndarray, "run images"], *, draws: int, seed: int = 0
) -> Float[np.ndarray, "run draws"]:
    """Accuracy of every run on test images drawn with replacement, the same images for all runs of a draw."""
    count, rng, parts = right.shape[1], np.random.default_rng(seed), []
    for start in range(0, draws, IMAGE_CHUNK):
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=min(IMAGE_CHUNK, draws - start))
        parts.append(right.astype(np.float32) @ drawn.astype(np.float32).T / count)
    return np.concatenate(parts, 1)


def pooled_residuals(groups: Sequence[Float[np.ndarray, "seeds"]]) -> Float[np.ndarray, "n"]:
    """Every run's distance from its group's mean, widened by sqrt(n / (n - 1)): a pool to draw seeds' luck from."""
    return np.concatenate(
        [(group - group.mean()) * math.sqrt(len(group) / (len(group) - 1)) for group in groups if len(group) > 1]
    )


def two_way_draws(
    first: Float[np.ndarray, "seeds draws"], second: Float[np.ndarray, "seeds2 draws"],
    residuals: Float[np.ndarray, "n"], *, seed: int = 0,
) -> Float[np.ndarray, "draws"]:  # fmt: skip
    """Differences of two groups' mean accuracies over draws of test images (`image_resamples`) and of seeds.

    Seeds' luck is drawn from `residuals` (`pooled_residuals`), anew for each run of both groups: a two-way bootstrap
    whose variance between seeds is pooled over all configurations.
    """
    rng, draws = np.random.default_rng(seed), first.shape[1]
    luck = [rng.choice(residuals, (len(group), draws)).mean(0) for group in (first, second)]
    return first.mean(0) - second.mean(0) + luck[0] - luck[1]


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for the family that they are (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, number in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[number]))
        adjusted[number] = highest
    return adjusted


def _by_student(middle: float, error: float, degrees: int) -> Interval:
    """Interval of a number by its standard error and Student's quantile."""
    half = float(stats.t.ppf((1 + LEVEL) / 2, degrees)) * error
    return middle - half, middle + half
