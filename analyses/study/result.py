"""claims.json as the Markdown that the README shows."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from analyses.study.claims import Claim, Verdict, by_configuration, judge
from analyses.study.plan import CONFIGURATIONS, Study

NAME = "claims.json"
UNITS = {"accuracy": "points", "larger": "points", "sparser": "nats", "local": "patches", "agree": "rank correlation"}
WORDS = {configuration.name: configuration.words for configuration in CONFIGURATIONS}


def run(study: Study, *, workers: int, budget: float, out: Path) -> None:
    """Print the tables of claims.json; FileNotFoundError with the next step without one."""
    path = out / NAME
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; make it with `aft-lens study paper-claims`")
    print(markdown(json.loads(path.read_text())))


def markdown(record: Mapping[str, Any]) -> str:
    """The table of verdicts, the table of configurations and what they were measured on."""
    study, runs = record["study"], record["runs"]
    lines = [
        "| Claim | Paper | Ours (mean ± sd) | Difference [95 %] | Holds if | Verdict |",
        "|---|---|---|---|---|---|",
        *(_claim_row(verdict) for verdict in judge(runs)),
        "",
        "| Configuration | Parameters | Seeds | Epochs | Test accuracy, % | Images/s | Peak memory, MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in by_configuration(runs).items():
        lines.append(_configuration_row(WORDS[name], list(found.values())))
    for found in runs:
        if found["long"]:
            lines.append(_configuration_row(f"{WORDS[found['configuration']]}, long", [found]))
    lines += [
        "",
        f"Seeds 0 to {study['seeds'] - 1}, {study['epochs']} epochs each, on {', '.join(record['hardware'])}, "
        f"{max(1, record['workers'])} runs at a time sharing it; PyTorch {record['versions']['torch']}. "
        "Intervals are over seeds: unpaired, with the larger of a configuration's own and the pooled standard "
        "deviation and Student's quantile; same-weights comparisons (test size, entropy, distance, agreement) are "
        "paired by seed. The paper's figures are points of ImageNet top-1, ours of the test set named above.",
        f"Made by: `{record['command']}`",
    ]
    return "\n".join(lines)


def _claim_row(verdict: Verdict) -> str:
    claim = verdict.claim
    low, high = verdict.interval
    cells = [
        f"{claim.words} ({claim.source})",
        claim.paper,
        _ours(verdict),
        f"{verdict.difference:+.2f} [{low:+.2f}, {high:+.2f}] {UNITS[claim.metric]}",
        _criterion(claim),
        verdict.verdict,
    ]
    return "| " + " | ".join(cells) + " |"


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


def _configuration_row(words: str, found: list[dict[str, Any]]) -> str:
    peak = [one["peak_memory_mib"] for one in found if one["peak_memory_mib"] is not None]
    cells = [
        words,
        f"{found[0]['parameters']:,}",
        str(len(found)),
        str(found[0]["epochs"]),
        mean_and_deviation([one["accuracy"] for one in found]),
        f"{fmean(one['images_per_second'] for one in found):,.0f}",
        f"{max(peak):,.0f}" if peak else "–",
    ]
    return "| " + " | ".join(cells) + " |"
