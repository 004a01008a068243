"""The paper's claims, the criterion of each as it was set before training, and the verdicts over seeds."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import numpy as np
from scipy import stats

HOLDS, FAILS, OPEN = "holds", "does not hold at this scale", "inconclusive"
LEVEL = 0.95
Run = dict[str, Any]


@dataclass(frozen=True)
class Claim:
    """A difference (treatment minus control) and where it must lie.

    `above`: holds if the whole interval lies above `bound`, fails if the whole interval lies below it. `within`:
    holds if the interval lies within ±`bound`, fails if it lies wholly outside. All else is inconclusive.
    """

    words: str
    source: str
    paper: str
    """The paper's figure for the same contrast, points of ImageNet top-1."""
    treatment: str
    control: str
    bound: float = 0.0
    kind: str = "above"
    metric: str = "accuracy"
    """accuracy (points), larger (points, at 1.5x or 2x the size), sparser (nats), local (patches), agree (rank
    correlation)."""


CLAIMS = (
    Claim("AFT-conv is at least as good as a ViT of its size", "Table 7", "+0.3 (small 11/16), +1.7 (tiny 11/32)",
          "conv", "vit", -0.2),
    Claim("AFT-full is comparable to the ViT", "Table 7", "+0.2 (tiny), −0.1 (small)", "full", "vit", 0.5, "within"),
    Claim("Reparameterized biases are better than naive ones", "Table 10", "+1.4", "w7", "w7-free"),
    Claim("Factorized biases are better than whole ones in AFT-full", "Table 9", "+1.6", "full", "full-free"),
    Claim("Kernel 3 is comparable to the ViT", "Table 11", "0.0", "w3", "vit", -0.5),
    Claim("Kernel 7 is better than kernel 3", "Table 11", "+0.9", "w7", "w3"),
    Claim("Kernel 11 is better than kernel 3", "Table 11", "+0.9", "conv", "w3"),
    Claim("Kernel 19 is comparable to kernel 11", "Table 11, its larger kernels", "−0.1 to +0.2",
          "w19", "conv", 0.5, "within"),
    Claim("Kernel 27 is comparable to kernel 11", "Table 11, its larger kernels", "−0.1 to +0.2",
          "w27", "conv", 0.5, "within"),
    Claim("Twice the heads are better", "Table 7", "not printed", "h32", "conv"),
    Claim("A head for each channel is better", "Table 7", "+0.6 (small 16 to 384), +0.9 (tiny 32 to 192)",
          "h96", "conv"),
    Claim("The query matters", "Table 12", "+1.5", "conv", "no-query"),
    Claim("Global connectivity beyond the window matters", "Sec. 5.3", "+0.9", "w7", "w7-only"),
    Claim("Entropy regularization keeps the accuracy", "Sec. 8", "+0.1", "entropy", "conv", -0.5),
    Claim("Entropy regularization makes biases sparser", "Sec. 8, Fig. 7", "shown, no figure",
          "entropy", "conv", metric="sparser"),
    Claim("A single position a head loses less than a point", "Sec. 8", "−0.9", "single", "conv", -1.0),
    Claim("A single position a head is comparable to the ViT", "Sec. 8", "0.0 (small)", "single", "vit", -0.5),
    Claim("1.5 times larger test images help AFT-conv", "Sec. 5.3", "+0.6 (1.7 times)", "1.5", "conv", metric="larger"),
    Claim("2 times larger test images help AFT-conv", "Sec. 5.3", "+0.6 (1.7 times)", "2.0", "conv", metric="larger"),
    Claim("A ViT's weights are a better start than random ones", "Table 8", "+1.8", "transfer", "conv"),
    Claim("AFT-conv's biases are nearer than a flat map", "Fig. 6", "shown, no figure", "conv", "conv",
          metric="local"),
    Claim("A ViT's attention is nearer than a flat map", "Fig. 1", "shown, no figure", "vit", "vit", metric="local"),
    Claim("AFT-conv's biases agree with the ViT's relative attention", "Fig. 1 and 6", "shown, no figure",
          "conv", "vit", 0.5, metric="agree"),
)  # fmt: skip
"""In the order of the table."""


@dataclass(frozen=True)
class Verdict:
    """A claim judged."""

    claim: Claim
    verdict: str
    difference: float
    interval: tuple[float, float]
    treatment: tuple[float, float]
    """Mean and standard deviation over seeds."""
    control: tuple[float, float]
    """The same; NaN where there is nothing to compare with."""
    seeds: int


def judge(runs: Sequence[Run]) -> list[Verdict]:
    """Every claim whose runs are there with at least two seeds."""
    table = by_configuration(runs)
    pooled = pooled_deviation([[r["accuracy"] for r in found.values()] for found in table.values()])
    verdicts = (_verdict(claim, table, pooled) for claim in CLAIMS)
    return [verdict for verdict in verdicts if verdict is not None]


def by_configuration(runs: Sequence[Run]) -> dict[str, dict[int, Run]]:
    """Runs by configuration and seed, the long ones left out."""
    table: dict[str, dict[int, Run]] = {}
    for found in runs:
        if not found["long"]:
            table.setdefault(found["configuration"], {})[found["seed"]] = found
    return table


def pooled_deviation(groups: Sequence[Sequence[float]]) -> tuple[float, int]:
    """Standard deviation within groups, pooled, and its degrees of freedom (0 without any)."""
    degrees = sum(len(group) - 1 for group in groups)
    squares = sum((value - fmean(group)) ** 2 for group in groups for value in group)
    return (math.sqrt(squares / degrees) if degrees else math.nan), degrees


def unpaired_interval(
    treatment: Sequence[float], control: Sequence[float], pooled: tuple[float, int]
) -> tuple[float, float]:
    """95 % interval of the difference of two means of independent runs.

    Each group's deviation is its own or the study's pooled one, whichever is larger; Student's quantile has the
    pooled degrees of freedom.
    """
    deviation, degrees = pooled
    error = math.sqrt(sum(max(deviation, stdev(group)) ** 2 / len(group) for group in (treatment, control)))
    half = float(stats.t.ppf((1 + LEVEL) / 2, degrees)) * error
    middle = fmean(treatment) - fmean(control)
    return middle - half, middle + half


def paired_interval(differences: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean of differences, by Student's t over seeds."""
    count = len(differences)
    half = float(stats.t.ppf((1 + LEVEL) / 2, count - 1)) * stdev(differences) / math.sqrt(count)
    return fmean(differences) - half, fmean(differences) + half


def decide(claim: Claim, low: float, high: float) -> str:
    """The verdict of an interval (see `Claim`)."""
    if claim.kind == "above":
        return HOLDS if low > claim.bound else FAILS if high < claim.bound else OPEN
    if -claim.bound <= low and high <= claim.bound:
        return HOLDS
    return FAILS if low > claim.bound or high < -claim.bound else OPEN


def _verdict(claim: Claim, table: dict[str, dict[int, Run]], pooled: tuple[float, int]) -> Verdict | None:
    """A claim's verdict; None while runs are missing."""
    if claim.metric == "accuracy":
        groups = [[r["accuracy"] for r in table.get(name, {}).values()] for name in (claim.treatment, claim.control)]
        if min(len(group) for group in groups) < 2:
            return None
        low, high = unpaired_interval(groups[0], groups[1], pooled)
    else:
        pairs = METRICS[claim.metric](claim, table)
        if len(pairs) < 2:
            return None
        groups = [list(values) for values in zip(*pairs, strict=True)]
        low, high = paired_interval([a - b for a, b in pairs])
    ours = [(fmean(group), stdev(group)) for group in groups]
    seeds = min(len(group) for group in groups)
    return Verdict(claim, decide(claim, low, high), (low + high) / 2, (low, high), ours[0], ours[1], seeds)


Pairs = list[tuple[float, float]]


def _larger(claim: Claim, table: dict[str, dict[int, Run]]) -> Pairs:
    """Accuracy at a larger size and at the training size, of the same weights."""
    pairs = []
    for found in table.get(claim.control, {}).values():
        size = found["recipe"]["model"]["img_size"]
        patch = found["recipe"]["model"]["patch_size"]
        side = str(round(float(claim.treatment) * size / patch) * patch)
        if side in found["sizes"]:
            pairs.append((found["sizes"][side], found["accuracy"]))
    return pairs


def _sparser(claim: Claim, table: dict[str, dict[int, Run]]) -> Pairs:
    """Entropy of softmax(w), the control's first: a positive difference is sparser."""
    return [
        (other["places"]["entropy"], table[claim.treatment][seed]["places"]["entropy"])
        for seed, other in table.get(claim.control, {}).items()
        if seed in table.get(claim.treatment, {})
    ]


def _local(claim: Claim, table: dict[str, dict[int, Run]]) -> Pairs:
    """Mean distance of a flat map and of the model's."""
    places = [found["places"] for found in table.get(claim.treatment, {}).values()]
    return [(place["uniform_distance"], place["distance"]) for place in places]


def _agree(claim: Claim, table: dict[str, dict[int, Run]]) -> Pairs:
    """Spearman's rank correlation over offsets of the mean maps of two models of one seed."""
    pairs = []
    for seed, found in table.get(claim.treatment, {}).items():
        if seed in table.get(claim.control, {}):
            maps = [np.ravel(one["places"]["map"]) for one in (found, table[claim.control][seed])]
            pairs.append((float(stats.spearmanr(*maps).statistic), 0.0))
    return pairs


METRICS: dict[str, Callable[[Claim, dict[str, dict[int, Run]]], Pairs]] = {
    "larger": _larger,
    "sparser": _sparser,
    "local": _local,
    "agree": _agree,
}
