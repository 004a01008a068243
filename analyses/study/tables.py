"""claims.json as tables: verdicts, configurations, and what they were measured on."""

from collections.abc import Sequence
from statistics import fmean, stdev

from analyses.result import Table
from analyses.study.claims import Claim
from analyses.study.plan import CONFIGURATIONS
from analyses.study.record import Run, by_configuration
from analyses.study.verdicts import Verdict

UNITS = {"accuracy": "points", "larger": "points", "sparser": "nats", "local": "patches", "agree": "rank correlation"}
WORDS = {configuration.name: configuration.words for configuration in CONFIGURATIONS}


def claim_table(verdicts: Sequence[Verdict]) -> Table:
    """A claim a row."""
    columns = ("Claim", "Paper", "Ours (mean ± sd)", "Difference [95 %]", "Holds if", "Verdict")
    return Table(columns, [_claim_row(verdict) for verdict in verdicts])


def configuration_table(runs: Sequence[Run]) -> Table:
    """A configuration a row, its seeds together, then the long runs."""
    columns = ("Configuration", "Parameters", "Seeds", "Epochs", "Test accuracy, %", "Images/s", "Peak memory, MiB")
    rows = [_configuration_row(WORDS[name], list(found.values())) for name, found in by_configuration(runs).items()]
    rows += [_configuration_row(f"{WORDS[run.configuration]}, long", [run]) for run in runs if run.long]
    return Table(columns, rows, words=1)


def _claim_row(verdict: Verdict) -> list[str]:
    claim = verdict.claim
    low, high = verdict.interval
    return [
        f"{claim.words} ({claim.source})",
        claim.paper,
        _ours(verdict),
        f"{verdict.difference:+.2f} [{low:+.2f}, {high:+.2f}] {UNITS[claim.metric]}",
        _criterion(claim),
        verdict.verdict,
    ]


def _ours(verdict: Verdict) -> str:
    """Both sides with their standard deviations."""
    sides = [f"{mean:.2f} ± {deviation:.2f}" for mean, deviation in (verdict.treatment, verdict.control)]
    claim = verdict.claim
    if claim.metric == "accuracy":
        return f"{WORDS[claim.treatment]} {sides[0]}; {WORDS[claim.control]} {sides[1]}"
    if claim.metric == "larger":
        return f"larger {sides[0]}; training size {sides[1]}"
    if claim.metric == "sparser":
        return f"{WORDS[claim.control]} {sides[0]}; {WORDS[claim.treatment]} {sides[1]}"
    return f"flat {sides[0]}; {WORDS[claim.treatment]} {sides[1]}" if claim.metric == "local" else sides[0]


def _criterion(claim: Claim) -> str:
    """The claim's rule in short."""
    return f"interval > {claim.bound:g}" if claim.kind == "above" else f"interval within ±{claim.bound:g}"


def mean_and_deviation(scores: Sequence[float]) -> str:
    """A mean over seeds with their standard deviation, where there are several."""
    spread = f" ± {stdev(scores):.2f}" if len(scores) > 1 else ""
    return f"{fmean(scores):.2f}{spread}"


def _configuration_row(words: str, runs: Sequence[Run]) -> list[str]:
    peak = [run.peak_memory_mib for run in runs if run.peak_memory_mib is not None]
    return [
        words,
        f"{runs[0].parameters:,}",
        str(len(runs)),
        str(runs[0].epochs),
        mean_and_deviation([run.accuracy for run in runs]),
        f"{fmean(run.images_per_second for run in runs):,.0f}",
        f"{max(peak):,.0f}" if peak else "–",
    ]
