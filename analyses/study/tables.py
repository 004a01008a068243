"""claims.json as tables: verdicts, configurations, and what they were measured on."""

from collections.abc import Sequence
from statistics import fmean, stdev

from analyses.result import Table
from analyses.study.claims import Claim
from analyses.study.configurations import CONFIGURATIONS, FAMILIES
from analyses.study.record import Run, by_configuration
from analyses.study.verdicts import UNTESTED, Verdict

UNITS = {
    "accuracy": "points", "larger": "points", "sparser": "nats", "near": "rank correlation", "local": "patches",
    "agree": "rank correlation",
}  # fmt: skip
WORDS = {name: configuration.words for name, configuration in CONFIGURATIONS.items()}


def claim_table(verdicts: Sequence[Verdict]) -> Table:
    """A claim and a data set a row."""
    columns = ("Claim", "Data", "Paper", "Ours (mean ± sd)", "Difference [95 %]", "p", "Holds if", "Verdict")
    return Table(columns, [_claim_row(verdict) for verdict in verdicts], words=3)


def configuration_table(runs: Sequence[Run]) -> Table:
    """A configuration and a data set a row, its seeds together."""
    columns = (
        "Configuration", "Data", "Parameters", "Seeds", "Epochs", "Test accuracy, %", "Images/s", "Peak memory, MiB"
    )  # fmt: skip
    rows = []
    for family in dict.fromkeys(run.family for run in runs):
        table = by_configuration([run for run in runs if run.family == family])
        rows += [_configuration_row(WORDS[name], list(found.values())) for name, found in table.items()]
    return Table(columns, rows, words=2)


def _claim_row(verdict: Verdict) -> list[str]:
    claim = verdict.claim
    start = [f"{claim.words} ({claim.source})", FAMILIES[verdict.family].words, claim.paper]
    if verdict.verdict == UNTESTED:
        return [*start, "–", "–", "–", _criterion(claim), UNTESTED]
    low, high = verdict.interval
    return [
        *start,
        _ours(verdict),
        f"{verdict.difference:+.2f} [{low:+.2f}, {high:+.2f}] {UNITS[claim.metric]}",
        f"{verdict.p_value:.2g}",
        _criterion(claim),
        verdict.verdict,
    ]


def _ours(verdict: Verdict) -> str:
    """Both sides with their standard deviations."""
    sides = [f"{mean:.2f} ± {deviation:.2f}" for mean, deviation in (verdict.treatment, verdict.control)]
    claim = verdict.claim
    if claim.metric == "larger":
        return f"larger {sides[0]}; training size {sides[1]}"
    if claim.metric == "sparser":
        return f"{WORDS[claim.control]} {sides[0]}; {WORDS[claim.treatment]} {sides[1]}"
    if claim.metric == "local":
        return f"flat {sides[0]}; {WORDS[claim.treatment]} {sides[1]}"
    if claim.metric == "agree" or claim.treatment == claim.control:
        return sides[0]
    return f"{WORDS[claim.treatment]} {sides[0]}; {WORDS[claim.control]} {sides[1]}"


def _criterion(claim: Claim) -> str:
    """The claim's rule in short."""
    return f"> {claim.bound:g}" if claim.kind == "above" else f"within ±{claim.bound:g}"


def mean_and_deviation(scores: Sequence[float]) -> str:
    """A mean over seeds with their standard deviation, where there are several."""
    spread = f" ± {stdev(scores):.2f}" if len(scores) > 1 else ""
    return f"{fmean(scores):.2f}{spread}"


def _configuration_row(words: str, runs: Sequence[Run]) -> list[str]:
    peak = [run.peak_memory_mib for run in runs if run.peak_memory_mib is not None]
    return [
        words,
        FAMILIES[runs[0].family].words,
        f"{runs[0].parameters:,}",
        str(len(runs)),
        str(runs[0].epochs),
        mean_and_deviation([run.accuracy for run in runs]),
        f"{fmean(run.images_per_second for run in runs):,.0f}",
        f"{max(peak):,.0f}" if peak else "–",
    ]
