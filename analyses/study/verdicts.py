"""Verdicts over seeds on the paper's claims."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np
from scipy import stats

from aft_lens.statistics import Interval, pooled_deviation, student_interval, unpaired_interval
from analyses.study.claims import CLAIMS, Claim
from analyses.study.record import Run, by_configuration

HOLDS, FAILS, OPEN = "holds", "does not hold at this scale", "inconclusive"
Runs = dict[str, dict[int, Run]]
"""By configuration and seed."""
Pairs = list[tuple[float, float]]


@dataclass(frozen=True)
class Verdict:
    """A claim judged."""

    claim: Claim
    verdict: str
    difference: float
    interval: Interval
    treatment: tuple[float, float]
    """Mean and standard deviation over seeds."""
    control: tuple[float, float]
    """The same; NaN where there is nothing to compare with."""
    seeds: int


def judge(runs: Sequence[Run]) -> list[Verdict]:
    """Every claim whose runs are there with at least two seeds."""
    table = by_configuration(runs)
    pooled = pooled_deviation([[run.accuracy for run in found.values()] for found in table.values()])
    verdicts = (_verdict(claim, table, pooled) for claim in CLAIMS)
    return [verdict for verdict in verdicts if verdict is not None]


def decide(claim: Claim, low: float, high: float) -> str:
    """The verdict of an interval (see `Claim`)."""
    if claim.kind == "above":
        return HOLDS if low > claim.bound else FAILS if high < claim.bound else OPEN
    if -claim.bound <= low and high <= claim.bound:
        return HOLDS
    return FAILS if low > claim.bound or high < -claim.bound else OPEN


def _verdict(claim: Claim, table: Runs, pooled: tuple[float, int]) -> Verdict | None:
    """A claim's verdict; None while runs are missing."""
    if claim.metric == "accuracy":
        groups = [[run.accuracy for run in table.get(name, {}).values()] for name in (claim.treatment, claim.control)]
        if min(len(group) for group in groups) < 2:
            return None
        low, high = unpaired_interval(groups[0], groups[1], pooled)
    else:
        pairs = METRICS[claim.metric](claim, table)
        if len(pairs) < 2:
            return None
        groups = [list(values) for values in zip(*pairs, strict=True)]
        low, high = student_interval([a - b for a, b in pairs])
    ours = [(fmean(group), stdev(group)) for group in groups]
    seeds = min(len(group) for group in groups)
    return Verdict(claim, decide(claim, low, high), (low + high) / 2, (low, high), ours[0], ours[1], seeds)


def _larger(claim: Claim, table: Runs) -> Pairs:
    """Accuracy at a larger size and at the training size, of the same weights."""
    pairs = []
    for run in table.get(claim.control, {}).values():
        size, patch = run.recipe["model"]["img_size"], run.recipe["model"]["patch_size"]
        side = str(round(float(claim.treatment) * size / patch) * patch)
        if side in run.sizes:
            pairs.append((run.sizes[side], run.accuracy))
    return pairs


def _sparser(claim: Claim, table: Runs) -> Pairs:
    """Entropy of softmax(w), the control's first: a positive difference is sparser."""
    both = [(control.places, treatment.places) for treatment, control in _by_seed(claim, table)]
    return [
        (control.entropy, treatment.entropy)
        for control, treatment in both
        if control and treatment and control.entropy is not None and treatment.entropy is not None
    ]


def _local(claim: Claim, table: Runs) -> Pairs:
    """Mean distance of a flat map and of the model's."""
    places = [run.places for run in table.get(claim.treatment, {}).values()]
    return [(place.uniform_distance, place.distance) for place in places if place]


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
    "local": _local,
    "agree": _agree,
}
"""How each metric but accuracy pairs what it compares: treatment and control of one seed or of the same weights."""
