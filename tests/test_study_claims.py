"""Verdicts on known numbers, the order of criteria and runs, and how both are shown."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from study_cases import IMAGES, run

from analyses.study import judge as judging
from analyses.study.claims import OURS, PAPER, Claim
from analyses.study.plan import PLANS
from analyses.study.record import Places, Run, packed
from analyses.study.result import Judged
from analyses.study.rivals import SparseRivals, points
from analyses.study.verdicts import FAILS, HOLDS, METRICS, OPEN, UNTESTED, judge

COMMIT = "0123456789abcdef", datetime(2025, 12, 31, tzinfo=UTC)


def test_a_published_run_is_read_as_it_was(tmp_path):
    one = run("conv", 0, 50.0, places=Places([[1.0, float("inf")], [3.0, 4.0]], None, 2.0))
    Judged("claims", "", "", [], {"torch": "2"}, [], [one]).write_record(tmp_path / "claims.json")
    record = json.loads((tmp_path / "claims.json").read_text())
    assert record["runs"][0]["places"]["map"] == [[1.0, None], [3.0, 4.0]]
    assert Judged.read(record).runs == [one]


def seeds(name, accuracies, **more):
    return [run(name, seed, accuracy, **more) for seed, accuracy in enumerate(accuracies)]


def judged(claims, runs):
    return {(verdict.claim.words, verdict.family): verdict for verdict in judge(runs, claims)}


def verdict(bound, kind, treatment, control=(80.0, 81.0, 80.5, 80.0, 81.0, 80.5)):
    claim = Claim("x", "", "", "a", "b", bound, kind)
    return judged([claim], [*seeds("a", treatment), *seeds("b", control)])["x", "fashion"]


@pytest.mark.parametrize(
    ("bound", "kind", "shift", "expected"),
    [
        (0.0, "above", 10, HOLDS),
        (0.0, "above", -10, FAILS),
        (0.0, "above", 0, OPEN),
        (-5.0, "above", 0, HOLDS),
        (5.0, "within", 0, HOLDS),
        (5.0, "within", 15, FAILS),
        (5.0, "within", -15, FAILS),
        (0.1, "within", 0, OPEN),
    ],
)
def test_verdicts_of_known_differences(bound, kind, shift, expected):
    found = verdict(bound, kind, [value + shift for value in (80.0, 81.0, 80.5, 80.0, 81.0, 80.5)])
    assert found.verdict == expected
    assert found.difference == pytest.approx(shift)
    assert found.seeds == 6
    low, high = found.interval
    assert low < shift < high
    assert (found.p_value < 0.05) == (expected != OPEN)


def test_intervals_cover_as_often_as_they_say(monkeypatch):
    """Runs that differ by seed and by image, as test sets do: 95 % intervals hold the truth about 95 times in 100."""
    monkeypatch.setattr("analyses.study.verdicts.DRAWS", 400)
    rng, covered = np.random.default_rng(0), []
    claim = Claim("x", "", "", "a", "b")
    for _ in range(120):
        easy = rng.beta(4, 1, IMAGES)
        runs = []
        for name in "abcdefgh":
            for seed in range(5):
                right = rng.random(IMAGES) < np.clip(easy + 0.02 * rng.normal(), 0, 1)
                runs.append(run(name, seed, 100 * float(right.mean()), right=packed(right)))
        low, high = judged([claim], runs)["x", "fashion"].interval
        covered.append(low <= 0 <= high)
    assert 0.88 <= np.mean(covered) <= 1.0


def test_p_values_are_adjusted_for_the_table_and_missing_runs_are_not_tested():
    names = "abcdefghij"
    claims = [Claim(name, "", "", name, "k", 0.0) for name in names]
    runs = seeds("k", (80.0, 81.0, 80.5))
    for name in names[:9]:
        runs += seeds(name, (82.0, 83.5, 82.5) if name == "a" else (80.2, 81.2, 80.3))
    alone = judged(claims[:1], runs)["a", "fashion"]
    together = judged(claims, runs)
    assert together["a", "fashion"].p_value == pytest.approx(min(1, 9 * alone.p_value))
    missing = together["j", "fashion"]
    assert (missing.verdict, missing.seeds) == (UNTESTED, 0)
    assert np.isnan(missing.difference)


def test_every_data_set_is_judged_on_its_own_runs():
    runs = [*seeds("a", (90.0, 91.0)), *seeds("b", (80.0, 81.0))]
    runs += [replace(each, family="cifar10", accuracy=50.0) for each in runs]
    found = judged([Claim("x", "", "", "a", "b")], runs)
    assert found["x", "fashion"].difference == pytest.approx(10)
    assert found["x", "cifar10"].difference == 0


def test_what_the_other_metrics_compare():
    conv = Places([[1, 2], [3, 4]], 2.0, 2.0, 4.0, nearness=[0.4, 0.2, -1.0])
    table = {
        "conv": {seed: run("conv", seed, 90.0, places=conv) for seed in range(2)},
        "crops": {0: run("crops", 0, 90.0, sizes={"28": 91.0})},
        "entropy": {0: run("entropy", 0, 90.0, places=replace(conv, entropy=1.5, nearness=[None, 0.5]))},
        "vit": {1: run("vit", 1, 90.0, places=Places([[4, 3], [2, 1]], 2.0, 3.0))},
        "full": {1: run("full", 1, 90.0, places=None)},
    }

    def pairs(metric, treatment, control):
        return METRICS[metric](Claim("", "", "", treatment, control), table)

    assert pairs("larger", "crops", "crops") == [(91.0, 90.0)]
    assert pairs("sparser", "entropy", "conv") == [(4.0, 1.5)]
    assert pairs("near", "conv", "conv") == [(pytest.approx(0.3), 0.0)] * 2
    assert pairs("near", "entropy", "conv") == [(0.5, pytest.approx(0.3))]
    assert pairs("local", "vit", "vit") == [(3.0, 2.0)]
    assert pairs("agree", "conv", "vit") == [(pytest.approx(-1.0), 0.0)]
    assert pairs("agree", "full", "vit") == []
    assert pairs("local", "full", "full") == []


def test_no_claim_is_left_untested_once_every_run_is_there():
    place = Places(np.eye(3).tolist(), 1.0, 1.5, 3.0, nearness=[0.1, 0.2], positions=1.0)
    rng = np.random.default_rng(0)
    for claims, name in ((PAPER, "claims"), (OURS, "sparsity")):
        runs = [
            run(each.name, seed, 92 + rng.normal(), plan=name, places=place, sizes={"28": 91.0})
            for each in PLANS[name].configurations
            for seed in range(3)
        ]
        found = judge(runs, claims)
        assert [each.claim for each in found] == list(claims)
        assert {each.seeds for each in found} == {3}


def test_runs_before_their_criteria_are_refused():
    runs = seeds("conv", (90.0, 91.0))
    judging.check_order(runs, *COMMIT)
    with pytest.raises(ValueError, match="2 runs began before the criteria of commit 0123456789ab"):
        judging.check_order(runs, "0123456789abcdef", datetime(2026, 1, 2, tzinfo=UTC))


def test_criteria_must_be_committed(tmp_path, monkeypatch):
    monkeypatch.setattr(judging.claims, "__file__", str(tmp_path / "claims.py"))
    with pytest.raises(ValueError, match="must lie in a Git checkout"):
        judging.registration()
    monkeypatch.setattr(judging, "_git", lambda path, *words: " M claims.py" if words[0] == "status" else "")
    with pytest.raises(ValueError, match="must be committed"):
        judging.registration()


def test_a_judgement_is_read_as_it_was_written_and_shown(tmp_path):
    place = Places(np.eye(3).tolist(), 1.0, 1.5, 3.0, nearness=[0.1, 0.2], positions=1.0)
    runs = [*seeds("conv", (90.0, 91.5), places=place), *seeds("vit", (80.0, 81.0), places=place)]
    runs += seeds("w3", (90.2, 91.2))
    result = Judged("claims", "aft-lens study judge", "abc", ["a GPU"], {"torch": "2.11.0"}, [], runs)
    record = json.loads(result.write_record(tmp_path / "claims.json").read_text())
    again = Judged.read(record)
    assert [each.record() for each in again.runs] == [each.record() for each in runs]
    assert [each.verdict for each in again.verdicts()] == [row["verdict"] for row in record["claims"]]
    rows = result.table().mappings()
    assert [row["Verdict"] for row in rows].count(UNTESTED) == len(PAPER) - 5
    assert "Made by: `aft-lens study judge`" in result.markdown()
    assert len(result.figure().axes[0].get_yticklabels()) == 5
    assert sum(len(trace.x) for trace in result.interactive().data) == 5
    assert (again.runs[0].rights() == runs[0].rights()).all()
    assert isinstance(again.runs[0], Run)


def test_rivals_are_points_on_one_curve():
    dense = Places([[1.0]], 1.0, 1.0, 1.0, positions=121.0)
    few = replace(dense, positions=2.5)
    runs = seeds("conv", (90.0, 91.0), plan="sparsity", places=dense, pruned={"1": 50.0, "4": 80.0})
    runs += seeds("topk-2", (85.0, 86.0), plan="sparsity", places=few)
    runs += seeds("no-cutmix", (70.0, 71.0), plan="sparsity", places=dense)
    found = points(runs)
    assert [(point.method, point.setting, point.positions) for point in found] == [
        ("conv", "1 kept", 1.0), ("conv", "4 kept", 4.0), ("conv", "conv", 121.0), ("topk", "topk-2", 2.5),
    ]  # fmt: skip
    result = SparseRivals("command", ["a GPU"], {"torch": "2"}, 10, found)
    assert SparseRivals.read(json.loads(json.dumps(result.record()))).points == found
    assert "85.50 ± 0.71" in str(result)
    assert len(result.figure().axes[0].get_lines()) >= 2
    assert len(result.interactive().data) == 2
