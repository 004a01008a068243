"""Intervals and p-values against their formulas written out, and where there is little to be sure of."""

import math
from statistics import fmean, stdev

import numpy as np
import pytest

from aft_lens import statistics
from aft_lens.statistics import (
    bootstrap_interval,
    normal_interval,
    paired_bootstrap,
    paired_proportions,
    percentile_interval,
    permutation_p,
    pooled_deviation,
    student_interval,
    unpaired_interval,
    wilson,
)

Z = 1.959963984540054
"""Of the standard normal distribution, from a table."""
T = {1: 12.706204736, 2: 4.302652730, 4: 2.776445105, 5: 2.570581836}
"""Student's 97.5 % quantile by degrees of freedom, from a table."""


def written_out(right, total):
    """Wilson (1927)."""
    share = right / total
    centre = (share + Z**2 / (2 * total)) / (1 + Z**2 / total)
    half = Z / (1 + Z**2 / total) * math.sqrt(share * (1 - share) / total + Z**2 / (4 * total**2))
    return centre - half, centre + half


@pytest.mark.parametrize(("right", "total"), [(1, 1), (0, 1), (3, 7), (0, 10), (10, 10), (335, 360), (9123, 10_000)])
def test_wilson(right, total):
    assert wilson(right, total) == pytest.approx(written_out(right, total), abs=1e-8)
    assert 0 <= wilson(right, total)[0] <= right / total <= wilson(right, total)[1] <= 1


def test_wilson_wants_images():
    with pytest.raises(ValueError, match="total must be 1 or more"):
        wilson(0, 0)


def test_normal_interval_in_double_precision():
    values = np.random.default_rng(0).gamma(0.3, size=501).astype(np.float32)
    half = Z * stdev(values.tolist()) / math.sqrt(501)
    mean = fmean(values.tolist())
    assert normal_interval(values) == pytest.approx((mean - half, mean + half), abs=1e-10)
    assert normal_interval(np.ones(3)) == (1, 1)
    assert all(map(math.isnan, normal_interval(np.ones(1))))


def test_student_interval():
    values = [91.0, 92.5, 90.5, 93.0, 91.5]
    half = T[4] * stdev(values) / math.sqrt(5)
    assert student_interval(values) == pytest.approx((fmean(values) - half, fmean(values) + half), abs=1e-8)
    assert student_interval([2.0, 2.0]) == (2, 2)
    assert all(map(math.isnan, student_interval([2.0])))


def test_unpaired_interval_takes_the_larger_deviation():
    tight, wide, third = [1.0, 1.1, 0.9], [2.0, 4.0, 6.0], [5.0, 5.5]
    deviation, degrees = pooled_deviation([tight, wide, third])
    assert (deviation, degrees) == (pytest.approx(math.sqrt((0.02 + 8 + 0.125) / 5)), 5)
    half = T[5] * math.sqrt(deviation**2 / 3 + 2.0**2 / 3)
    assert unpaired_interval(tight, wide, (deviation, degrees)) == pytest.approx((-3 - half, -3 + half), abs=1e-8)
    half = T[5] * math.sqrt(deviation**2 / 3 + deviation**2)
    assert unpaired_interval(tight, [3.0], (deviation, degrees)) == pytest.approx((-2 - half, -2 + half), abs=1e-8)


def test_single_runs_have_no_interval():
    pooled = pooled_deviation([[1.0], [2.0]])
    assert math.isnan(pooled[0])
    assert pooled[1] == 0
    assert all(map(math.isnan, unpaired_interval([1.0], [2.0], pooled)))


@pytest.mark.parametrize("seed", [0, 3])
def test_bootstrap_is_numpys_draws(seed):
    values = (np.random.default_rng(9).random(97) < 0.8).astype(float)
    index = np.random.default_rng(seed).integers(0, 97, (500, 97))
    expected = np.percentile(values[index].mean(1), [2.5, 97.5])
    assert bootstrap_interval(values, draws=500, seed=seed) == pytest.approx(expected, abs=1e-8)


def test_bootstrap_of_little():
    assert bootstrap_interval(np.ones(20)) == (1, 1)
    assert bootstrap_interval(np.zeros(20)) == (0, 0)
    assert bootstrap_interval(np.array([0.3])) == (0.3, 0.3)
    with pytest.raises(ValueError, match="got none"):
        bootstrap_interval(np.zeros(0))


def test_paired_bootstrap_draws_images_in_pairs():
    before, after = np.random.default_rng(1).random((2, 60)) < 0.7
    change, interval = paired_bootstrap(before, after)
    assert change == pytest.approx(after.mean() - before.mean())
    index = np.random.default_rng(0).integers(0, 60, (2000, 60))
    expected = np.percentile(after[index].mean(1) - before[index].mean(1), [2.5, 97.5])
    assert interval == pytest.approx(expected, abs=1e-8)
    assert paired_bootstrap(before, before) == (0, (0, 0))
    with pytest.raises(ValueError, match="same images"):
        paired_bootstrap(before, after[:5])


def test_paired_proportions_of_agresti_and_min():
    before = np.array([True] * 7 + [False] * 5)
    after = np.array([True] * 4 + [False] * 3 + [True] + [False] * 4)
    gained, lost, padded = 1.5, 3.5, 14
    middle = (gained - lost) / padded
    half = Z * math.sqrt((gained + lost) / padded - middle**2) / math.sqrt(padded)
    assert paired_proportions(before, after) == pytest.approx((middle - half, middle + half), abs=1e-8)
    low, high = paired_proportions(before, before)
    assert low == -high < 0
    assert paired_proportions(np.array([False]), np.array([True]))[1] == 1


def test_draws():
    draws = np.random.default_rng(2).normal(size=(400, 3))
    assert percentile_interval(draws).shape == (2, 3)
    assert (percentile_interval(draws)[0] > draws.min(0)).all()
    assert percentile_interval(np.arange(1001)).tolist() == pytest.approx([25, 975])
    assert permutation_p(3.0, np.array([1.0, 2.0, 3.0, 4.0])) == 3 / 5
    assert permutation_p(9.0, np.zeros(99)) == 1 / 100
    assert permutation_p(1 + 1e-13, np.ones(3), tolerance=1e-12) == 1


def test_levels_agree():
    assert pytest.approx(Z, abs=1e-12) == statistics.Z
    assert pytest.approx((2.5, 97.5)) == statistics.TAILS


def test_the_bootstraps_interval_holds_95_percent():
    values = np.random.default_rng(1).normal(size=400)
    low, high = bootstrap_interval(values, draws=20_000)
    assert high - low == pytest.approx(2 * 1.959964 * values.std() / 20, rel=0.03)


def test_two_values_and_one_degree_of_freedom_have_intervals():
    assert normal_interval(np.array([0.0, 2.0])) == pytest.approx((1 - Z, 1 + Z))
    assert unpaired_interval([3.0], [1.0], (2.0, 1)) == pytest.approx(
        (2 - 12.7062 * math.sqrt(8), 2 + 12.7062 * math.sqrt(8)), rel=1e-5
    )


def test_the_edges_of_intervals():
    assert paired_proportions(np.array([True]), np.array([False]))[0] >= -1
    assert bootstrap_interval(np.array([0.0, 1.0])) == (0.0, 1.0)
    first, second = [0.0, 10.0], [0.0, 0.1]  # a pair's own deviation counts where it is the larger one
    low, high = unpaired_interval(first, second, (0.1, 10))
    assert high - low > 20
