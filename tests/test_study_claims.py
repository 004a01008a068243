"""Verdicts on known numbers, on the published runs, and how they are shown."""

import json
from dataclasses import replace

import numpy as np
import pytest
from study_cases import run

from analyses.provenance import RESULTS
from analyses.study.claims import CLAIMS, Claim
from analyses.study.plan import CONFIGURATIONS
from analyses.study.record import Places
from analyses.study.result import PaperClaims
from analyses.study.verdicts import FAILS, HOLDS, METRICS, OPEN, decide, judge


def test_no_claim_is_left_unjudged_once_every_run_is_there():
    place = Places(np.eye(3).tolist(), 1.0, 1.5, 3.0)
    sizes = {"42": 91.0, "56": 90.0}
    rng = np.random.default_rng(0)
    runs = [
        run(c.name, seed, 92 + 0.1 * rng.normal(), places=place, sizes=sizes)
        for c in CONFIGURATIONS
        for seed in range(3)
    ]
    verdicts = judge(runs)
    assert [verdict.claim for verdict in verdicts] == list(CLAIMS)
    assert {verdict.seeds for verdict in verdicts} == {3}


@pytest.mark.parametrize(
    ("kind", "bound", "low", "high", "expected"),
    [
        ("above", 0.0, 0.1, 0.5, HOLDS),
        ("above", 0.0, -0.5, -0.1, FAILS),
        ("above", 0.0, -0.1, 0.5, OPEN),
        ("above", -1.0, -0.9, 0.1, HOLDS),
        ("above", -1.0, -1.9, -1.1, FAILS),
        ("within", 0.5, -0.4, 0.5, HOLDS),
        ("within", 0.5, 0.6, 0.9, FAILS),
        ("within", 0.5, -0.9, -0.6, FAILS),
        ("within", 0.5, -0.6, 0.2, OPEN),
        ("within", 0.5, -0.9, 0.9, OPEN),
    ],
)
def test_verdicts_of_known_intervals(kind, bound, low, high, expected):
    assert decide(Claim("", "", "", "a", "b", bound, kind), low, high) == expected


def test_judging_by_accuracy_and_by_the_other_metrics():
    runs = [run("conv", seed, 92 + 0.01 * seed) for seed in range(3)]
    runs += [run("vit", seed, 90 + 0.01 * seed) for seed in range(3)]
    runs += [run("no-query", 0, 80.0), run("conv", 0, 10.0, long=True)]
    verdicts = {verdict.claim.words: verdict for verdict in judge(runs)}
    assert [v.claim.metric for v in verdicts.values()] == ["accuracy", "local", "local", "agree"]
    verdict = verdicts[CLAIMS[0].words]
    assert verdict.verdict == HOLDS
    assert verdict.difference == pytest.approx(2.0)
    assert verdict.treatment == (pytest.approx(92.01), pytest.approx(0.01))
    conv = Places([[1, 2], [3, 4]], 2.0, 2.0, 4.0)
    table = {
        "conv": {seed: run("conv", seed, 90.0, sizes={"42": 91.0, "56": 89.0}, places=conv) for seed in range(2)},
        "entropy": {0: run("entropy", 0, 90.0, places=replace(conv, entropy=1.5))},
        "vit": {1: run("vit", 1, 90.0, places=Places([[4, 3], [2, 1]], 2.0, 3.0))},
        "full": {1: run("full", 1, 90.0, places=None)},
    }
    assert METRICS["larger"](Claim("", "", "", "1.5", "conv"), table) == [(91.0, 90.0)] * 2
    assert METRICS["sparser"](Claim("", "", "", "entropy", "conv"), table) == [(4.0, 1.5)]
    assert METRICS["local"](Claim("", "", "", "vit", "vit"), table) == [(3.0, 2.0)]
    assert METRICS["agree"](Claim("", "", "", "conv", "vit"), table) == [(pytest.approx(-1.0), 0.0)]
    assert METRICS["agree"](Claim("", "", "", "full", "vit"), table) == []
    assert METRICS["local"](Claim("", "", "", "full", "full"), table) == []


@pytest.fixture(scope="module")
def published():
    return json.loads((RESULTS / "claims.json").read_text())


def test_the_published_runs_are_judged_as_published(published):
    result = PaperClaims.read(published)
    again = json.loads(json.dumps(result.record()))
    assert list(again) == list(published)
    for ours, theirs in zip(again["claims"], published["claims"], strict=True):
        for figure in ("difference", "interval", "treatment", "control"):
            assert ours.pop(figure) == pytest.approx(theirs.pop(figure), rel=1e-9, abs=1e-12)
        assert ours == theirs
    assert {key: again[key] for key in again if key != "claims"} == {
        key: published[key] for key in published if key != "claims"
    }


def test_the_published_verdicts_are_shown(published, tmp_path):
    result = PaperClaims.read(published)
    verdicts = [row["Verdict"] for row in result.table().mappings()]
    assert [verdicts.count(verdict) for verdict in (HOLDS, FAILS, OPEN)] == [10, 3, 10]
    assert "Made by: `aft-lens study paper-claims" in result.markdown()
    axis = result.figure().axes[0]
    assert len(axis.get_yticklabels()) == len(CLAIMS)
    assert sum(len(trace.x) for trace in result.interactive().data) == len(CLAIMS)
