"""autoregression.json: Tables 2 to 6 in small, with verdicts on what the paper's tables claim."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure, SubFigure
from scipy import stats

from aft_lens.statistics import Interval, holm, student_interval
from analyses.autoregression.criteria import CLAIMS, LEVEL, Claim
from analyses.autoregression.plan import SETTINGS, Setting
from analyses.result import Result, Table
from analyses.study.verdicts import FAILS, HOLDS, OPEN, UNTESTED
from analyses.theme import axes, layout

UNITS = {"pixels": "bits/dim", "text": "bits/character"}
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """A claim judged on runs that are paired by seed; NaN where it was not tested."""

    claim: Claim
    verdict: str
    seeds: int
    difference: float = math.nan
    """Of `higher` less `lower`, bits a symbol; of one seed it is no test."""
    interval: Interval = (math.nan, math.nan)
    """95 %, not adjusted."""
    p_value: float = math.nan
    """Two-sided, adjusted by Holm."""


def judge(rows: Sequence[Row]) -> list[Verdict]:
    """Every claim on the runs of its task."""
    found = [_differences(claim, rows) for claim in CLAIMS]
    tested = [(claim, each) for claim, each in zip(CLAIMS, found, strict=True) if len(each) > 1]
    raw = [float(stats.ttest_1samp(each, 0).pvalue) if np.ptp(each) else float(not any(each)) for _, each in tested]
    adjusted = {id(claim): p for (claim, _), p in zip(tested, holm(raw), strict=True)}
    out = []
    for claim, each in zip(CLAIMS, found, strict=True):
        if len(each) < 2:
            out.append(Verdict(claim, UNTESTED, len(each), each[0] if each else math.nan))
            continue
        p, mean = adjusted[id(claim)], fmean(each)
        verdict = OPEN if p >= LEVEL else HOLDS if mean > 0 else FAILS
        out.append(Verdict(claim, verdict, len(each), mean, student_interval(each), p))
    return out


def _differences(claim: Claim, rows: Sequence[Row]) -> list[float]:
    """`higher` less `lower` of each seed that has both."""
    sides = [
        {row["seed"]: row[claim.measure] for row in rows if (row["task"], row["setting"]) == (claim.task, name)}
        for name in (claim.higher, claim.lower)
    ]
    return [sides[0][seed] - sides[1][seed] for seed in sorted(set(sides[0]) & set(sides[1]))]


@dataclass(frozen=True)
class Autoregression(Result):
    """Runs of the settings and what they say of the claims."""

    name = "autoregression"
    size = (9.0, 6.5)

    runs: Sequence[Row]
    missing: Sequence[str]
    """Planned runs that are not trained yet."""
    data: Mapping[str, str]
    """By task, what was trained on, in words."""
    registration: str
    """Commit of the criteria."""
    speeds: Sequence[Row] = ()
    """Training steps at the paper's sizes."""

    def record(self) -> dict[str, Any]:
        """Verdicts first, then every run."""
        return {
            "data": self.data, "registration": self.registration, "missing": self.missing,
            "hardware": sorted({row["hardware"] for row in self.runs}),
            "versions": self.runs[0]["versions"] if self.runs else {},
            "claims": [
                {"words": v.claim.words, "source": v.claim.source, "paper": v.claim.paper, "task": v.claim.task,
                 "measure": v.claim.measure, "lower": v.claim.lower, "higher": v.claim.higher,
                 "difference": v.difference, "interval": v.interval, "p_value": v.p_value, "seeds": v.seeds,
                 "verdict": v.verdict}
                for v in judge(self.runs)
            ],
            "settings": [self._setting(each) for each in SETTINGS if self._of(each)],
            "speeds": self.speeds,
            "runs": self.runs,
        }  # fmt: skip

    def table(self) -> Table:
        """A setting a row."""
        rows = []
        for each in SETTINGS:
            if found := self._of(each):
                rows.append([
                    each.task, each.words, ", ".join(map(str, each.tables)), str(len(found)),
                    f"{found[0]['parameters'] / 1e6:.2f} M", _spread([row["train"] for row in found]),
                    _spread([row["test"] for row in found]),
                ])  # fmt: skip
        held = [verdict.verdict for verdict in judge(self.runs)]
        note = ", ".join(f"{held.count(word)} {word}" for word in (HOLDS, FAILS, OPEN, UNTESTED) if word in held)
        columns = ("task", "decoder", "tables", "seeds", "parameters", "train bits", "test bits (mean ± sd)")
        return Table(columns, rows, "Tables 2 to 6 in small", f"claims: {note}", words=2)

    def claims(self) -> Table:
        """A claim a row."""
        rows = [
            [v.claim.words, v.claim.source, v.claim.paper, v.claim.measure, _number(v.difference),
             f"[{_number(v.interval[0])}, {_number(v.interval[1])}]", f"{v.p_value:.2g}".replace("nan", "–"), v.verdict]
            for v in judge(self.runs)
        ]  # fmt: skip
        columns = ("claim", "source", "paper's bits", "split", "bits fewer", "95 %", "p (Holm)", "verdict")
        return Table(columns, rows, words=4)

    def plot(self, figure: Figure | SubFigure) -> None:
        """Test bits of each setting, a seed a dot."""
        for axis, task in zip(np.ravel(figure.subplots(1, 2)), UNITS, strict=True):
            chosen = [each for each in SETTINGS if each.task == task and self._of(each)]
            for place, each in enumerate(chosen):
                axis.plot([row["test"] for row in self._of(each)], [place] * len(self._of(each)), "o", color="#2f6db3",
                          ms=4)  # fmt: skip
            axis.set_yticks(range(len(chosen)), [each.words for each in chosen], fontsize=7)
            axis.invert_yaxis()
            axis.set_xlabel(f"test {UNITS[task]}")

    def interactive(self) -> go.Figure:
        """The same with the values under the pointer."""
        rows = [(each, row) for each in SETTINGS for row in self._of(each)]
        figure = go.Figure(
            go.Scatter(
                x=[row["test"] for _, row in rows], y=[f"{each.task}: {each.words}" for each, _ in rows],
                mode="markers", customdata=[row["seed"] for _, row in rows],
                hovertemplate="%{y}, seed %{customdata}: %{x:.4f} bits",
            )
        )  # fmt: skip
        figure.update_yaxes(autorange="reversed")
        figure.update_xaxes(title="test bits a symbol")
        return layout(axes(figure), height=160 + 24 * len(SETTINGS))

    def _of(self, setting: Setting) -> list[Row]:
        """The runs of a setting."""
        return [row for row in self.runs if (row["task"], row["setting"]) == (setting.task, setting.name)]

    def _setting(self, setting: Setting) -> dict[str, Any]:
        """A setting's seeds together."""
        rows = self._of(setting)
        test, train = ([row[measure] for row in rows] for measure in ("test", "train"))
        return {
            "task": setting.task, "setting": setting.name, "words": setting.words, "tables": setting.tables,
            "seeds": len(rows), "test": fmean(test), "test_interval": student_interval(test), "train": fmean(train),
            "parameters": rows[0]["parameters"],
        }  # fmt: skip


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:+.4f}"


def _spread(values: Sequence[float]) -> str:
    deviation = f" ± {stdev(values):.4f}" if len(values) > 1 else ""
    return f"{fmean(values):.4f}{deviation}"
