"""Verdicts over seeds and test images on claims, with the p-values of a table adjusted for their number."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np
from scipy import stats

from aft_lens.statistics import (
    Interval,
    holm,
    image_resamples,
    percentile_interval,
    pooled_residuals,
    student_interval,
    two_way_draws,
)
from analyses.learned.measure import FIRST_LAYERS
from analyses.study.claims import Claim
from analyses.study.record import Run, by_configuration

HOLDS, FAILS, OPEN, UNTESTED = "holds", "does not hold at this scale", "inconclusive", "not tested"
LEVEL = 0.05
"""Of the adjusted p-values."""
DRAWS = 4000
"""Of the two-way bootstrap; p-values cannot be below 1 / 4,001."""
Runs = dict[str, dict[int, Run]]
"""By configuration and seed."""
Pairs = list[tuple[float, float]]


@dataclass(frozen=True)
class Verdict:
    """A claim judged on a data set; NaN wherever it was not tested."""

    claim: Claim
    family: str
    verdict: str
    seeds: int
    """Fewest runs on a side; 0 where the claim was not tested."""
    difference: float = math.nan
    interval: Interval = (math.nan, math.nan)
    """95 %, not adjusted."""
    p_value: float = math.nan
    """Two-sided against the bound, adjusted by Holm for all tested claims of the table."""
    treatment: tuple[float, float] = (math.nan, math.nan)
    """Mean and standard deviation over seeds."""
    control: tuple[float, float] = (math.nan, math.nan)


@dataclass(frozen=True)
class _Found:
    """What the runs say of a claim before the number of claims is known."""

    groups: tuple[list[float], list[float]]
    interval: Interval
    for_claim: float
    """One-sided p-value of the claim's opposite."""
    against: float
    """One-sided p-value of the claim."""


def judge(runs: Sequence[Run], claims: Sequence[Claim]) -> list[Verdict]:
    """Every claim on every data set that there are runs of, data set by data set."""
    found = []
    for family in dict.fromkeys(run.family for run in runs):
        table = by_configuration([run for run in runs if run.family == family])
        draws, residuals = _draws(table)
        found += [(claim, family, _found(claim, table, draws, residuals)) for claim in claims]
    tested = [each for _, _, each in found if each is not None]
    adjusted = dict(
        zip(map(id, tested), holm([min(1.0, 2 * min(each.for_claim, each.against)) for each in tested]), strict=True)
    )
    return [
        Verdict(claim, family, UNTESTED, 0) if each is None else _verdict(claim, family, each, adjusted[id(each)])
        for claim, family, each in found
    ]


def _draws(table: Runs) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Accuracies (percent) of each configuration's runs over draws of test images, and the pool of seeds' luck."""
    order = [(name, seed) for name, found in table.items() for seed in found]
    rights = np.stack([table[name][seed].rights() for name, seed in order])
    resampled = 100 * image_resamples(rights, draws=DRAWS)
    names = np.array([name for name, _ in order])
    groups = [np.array([run.accuracy for run in found.values()]) for found in table.values()]
    pool = pooled_residuals(groups) if any(len(group) > 1 for group in groups) else np.zeros(0)
    return {name: resampled[names == name] for name in table}, pool


def _found(claim: Claim, table: Runs, draws: dict[str, np.ndarray], residuals: np.ndarray) -> _Found | None:
    """What the runs say; None with fewer than two seeds on a side."""
    if claim.metric == "accuracy":
        groups = [[run.accuracy for run in table.get(name, {}).values()] for name in (claim.treatment, claim.control)]
        if min(len(group) for group in groups) < 2:
            return None
        drawn = two_way_draws(draws[claim.treatment], draws[claim.control], residuals)
        low, high = (float(end) for end in percentile_interval(drawn))
        ends = claim.bound, -claim.bound
        most, least = (
            [(1 + share.sum()) / (1 + len(drawn)) for share in shares]
            for shares in (
                [drawn <= end for end in ends],
                [drawn >= end for end in ends],
            )
        )
        return _Found((groups[0], groups[1]), (low, high), *_sides(claim, most, least))
    pairs = METRICS[claim.metric](claim, table)
    if len(pairs) < 2:
        return None
    ours, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
    differences = [a - b for a, b in pairs]
    error, degrees = max(float(stats.sem(differences)), np.finfo(float).tiny), len(pairs) - 1
    most = [float(stats.t.cdf((end - fmean(differences)) / error, degrees)) for end in (claim.bound, -claim.bound)]
    sides = _sides(claim, most, [1 - share for share in most])
    return _Found((ours, theirs), student_interval(differences), *sides)


def _sides(claim: Claim, most: Sequence[float], least: Sequence[float]) -> tuple[float, float]:
    """P-values of the claim's opposite and of the claim.

    `most` has the probabilities of a difference of at most `bound` and -`bound`, `least` those of at least as much.
    """
    if claim.kind == "above":
        return float(most[0]), float(least[0])
    return float(max(most[1], least[0])), float(min(most[0], least[1]))


def _verdict(claim: Claim, family: str, found: _Found, p_value: float) -> Verdict:
    """The claim's verdict, once its p-value is adjusted."""
    shown = HOLDS if found.for_claim < found.against else FAILS
    ours = [(fmean(group), stdev(group)) for group in found.groups]
    return Verdict(
        claim, family, shown if p_value < LEVEL else OPEN, min(len(group) for group in found.groups),
        ours[0][0] - ours[1][0], found.interval, p_value, ours[0], ours[1],
    )  # fmt: skip


def _larger(claim: Claim, table: Runs) -> Pairs:
    """Accuracy at the data's own size and at the size that was trained at, of the same weights."""
    runs = table.get(claim.treatment, {}).values()
    return [(own, run.accuracy) for run in runs for own in run.sizes.values()]


def _sparser(claim: Claim, table: Runs) -> Pairs:
    """Entropy of softmax(w), the control's first: a positive difference is sparser."""
    both = [(control.places, treatment.places) for treatment, control in _by_seed(claim, table)]
    return [
        (control.entropy, treatment.entropy)
        for control, treatment in both
        if control and treatment and control.entropy is not None and treatment.entropy is not None
    ]


def _near(claim: Claim, table: Runs) -> Pairs:
    """Nearness of w in the first layers; against itself, that of shuffled maps, which is 0 on average."""
    pairs = [tuple(_first_layers(run) for run in both) for both in _by_seed(claim, table)]
    same = claim.treatment == claim.control
    return [(a, 0.0 if same else b) for a, b in pairs if a is not None and b is not None]


def _first_layers(run: Run) -> float | None:
    """Mean nearness of the first layers' heads."""
    near = (run.places and run.places.nearness) or []
    kept = [value for value in near[:FIRST_LAYERS] if value is not None]
    return fmean(kept) if kept else None


def _local(claim: Claim, table: Runs) -> Pairs:
    """Mean distance of a flat map and of the model's."""
    places = [run.places for run in table.get(claim.treatment, {}).values()]
    return [(place.uniform_distance, place.distance) for place in places if place and place.distance is not None]


def _agree(claim: Claim, table: Runs) -> Pairs:
    """Spearman's rank correlation over offsets of the mean maps of two models of one seed."""
    pairs = []
    for treatment, control in _by_seed(claim, table):
        if treatment.places and control.places:
            maps = [np.ravel(run.map) for run in (treatment.places, control.places)]
            pairs.append((float(stats.spearmanr(*maps).statistic), 0.0))
    return pairs


def _by_seed(claim: Claim, table: Runs) -> list[tuple[Run, Run]]:
    """Treatment and control of each seed that has both."""
    ours, theirs = table.get(claim.treatment, {}), table.get(claim.control, {})
    return [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]


METRICS: dict[str, Callable[[Claim, Runs], Pairs]] = {
    "larger": _larger,
    "sparser": _sparser,
    "near": _near,
    "local": _local,
    "agree": _agree,
}
"""How each metric but accuracy pairs what it compares: treatment and control of one seed or of the same weights."""
