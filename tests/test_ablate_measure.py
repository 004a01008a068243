"""Which heads go first, how many can go, what is measured once, and the command from a folder to its record."""

import json
import pickle
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from test_ablate import Toy, noise
from tiny_dinov2 import dinov2, save_dinov2

from aft_lens.errors import Stopped
from aft_lens.models import create_model
from analyses.ablate import Plan, Rung, ablate, plan_for
from analyses.ablate.ablation import Needed
from analyses.ablate.bench import Row
from analyses.ablate.curve import Curve, Point, areas, next_count, reach
from analyses.ablate.measure import curve, minimality, ranked
from analyses.ablate.opened import Setup, measured
from analyses.ablate.runner import Model, Runner
from analyses.cells import Crew
from analyses.store import Store
from app.cli import main

ONE = Rung("offsets", 1)
IMAGES = 40


def row(right):
    """A model that has so many of the images right."""
    agreed = {"cosine": 1.0, "cosine_interval": (1.0, 1.0)}
    return Row(agreed, "1" * right + "0" * (IMAGES - right), tuple([0.1] * right + [2.0] * (IMAGES - right)))


def points(*changes):
    return [
        Point(10 * (i + 1), 0.5, change, (change - 0.02, change), None, None, {}) for i, change in enumerate(changes)
    ]


def test_heads_within_end_at_the_first_point_that_loses_too_much():
    assert reach(points(0.0, -0.01, -0.03, 0.0), 1.0) == (20, 0)
    assert reach(points(0.015, -0.02), 1.0) == (10, 10)
    assert reach(points(-0.02, 0.0), 1.0) == (0, 0)
    assert next_count(points(0.0, -0.01, -0.03, 0.0), 1.0) == 25
    assert next_count(points(-0.02), 1.0) == 5
    assert next_count(points(0.0, 0.0), 1.0) is None
    close = [replace(point, count=count) for point, count in zip(points(0.0, -0.5), (4, 5))]
    assert next_count(close, 1.0) is None


def made(*right, counts=(1, 2)):
    rows = [row(one) for one in right]
    heads = tuple((0, head) for head in range(2))
    return Curve(
        "explained", ONE, heads, tuple(Point.of(c, r, row(40)) for c, r in zip(counts, rows)), tuple(rows), 0, 0
    )


def test_areas_are_of_what_is_kept():
    flat, falling = made(40, 40), made(20, 0)
    assert areas(flat, row(40)).value == 1
    assert areas(flat, row(40)).interval == (1, 1)
    assert areas(falling, row(40)).value == pytest.approx(0.5)
    floored = areas(falling, row(40), row(10))
    assert floored.value == pytest.approx((1 + 1 / 3) / 4 + (1 / 3 - 1 / 3) / 4)
    difference = areas(flat, row(40), less=falling)
    assert difference.value == pytest.approx(0.5)
    assert difference.interval[0] < 0.5 < difference.interval[1]
    assert areas(made(40, counts=(1,)), row(40)) is None, "not carried on to all heads"
    assert areas(flat, row(40), row(40)) is None, "an ablation that costs nothing is no floor"


HARM = {(0, 0): 1.0, (0, 1): 1.1, (1, 0): 3.0, (1, 1): 5.0}


def harm(model):
    """Heads 0.0 and 0.1 stand in for each other: without both much is lost, which neither alone shows."""
    gone = {head for head, _ in model.edits}
    total = sum(HARM[head] for head in gone) + 20 * ({(0, 0), (0, 1)} <= gone)
    return Row(
        {"cosine": 1.0, "cosine_interval": (1.0, 1.0)},
        "1" * (IMAGES - int(total)) + "0" * int(total),
        (total,) * IMAGES,
    )


@pytest.fixture
def runner(tmp_path):
    calls = []

    def count(model):
        calls.append(model)
        return harm(model)

    made = Runner(count, "mark", Store(tmp_path))
    made.calls = calls
    return made


def plan(**changes):
    return replace(Plan((ONE,), ("explained",), ONE, (2, 4), (), (), 1, 0, 10.0, False), **changes)


def test_greedy_sees_heads_that_stand_in_for_each_other_and_single_damage_does_not(runner):
    heads = list(HARM)
    assert ranked("damage", heads, None, plan(), runner) == ((0, 0), (0, 1), (1, 0), (1, 1))
    assert ranked("greedy", heads, None, plan(), runner) == ((0, 0), (1, 0), (1, 1), (0, 1))
    assert ranked("greedy", heads, None, plan(step=2), runner)[:2] == ((0, 0), (0, 1))
    rounds = ranked("greedy", heads, None, plan(rounds=2), runner)
    assert rounds == ((0, 0), (1, 0), (1, 1), (0, 1)), "the last round's damage ranks what is left"
    assert ranked("greedy", heads, None, plan(rounds=1), runner) == ranked("damage", heads, None, plan(), runner)
    assert all(model.choosing for model in runner.calls), "test images choose no heads"
    drawn = ranked("random", heads, None, plan(), runner)
    assert sorted(drawn) == heads
    assert drawn == ranked("random", heads, None, plan(), runner)


def test_a_model_is_measured_once_however_it_is_asked_for(runner, tmp_path):
    edits = {(0, 0): ONE, (1, 1): Rung("map")}
    models = [
        Model.of(edits),
        Model.of(dict(reversed(edits.items()))),
        Model.of(edits, 1),
        Model.of(edits, choosing=True),
    ]
    rows = runner.rows(models, "words")
    assert len(runner.calls) == 2
    assert (runner.asked, runner.unique) == (4, 2)
    assert rows[0] == rows[1] == rows[2]
    again = Runner(_never, "mark", Store(tmp_path))
    assert again.rows(models, "words") == rows
    other = Runner(harm, "other mark", Store(tmp_path))
    assert other.rows(models[:1], "words") == rows[:1]


def _never(model):
    raise AssertionError("what is kept is not measured again")


def test_the_count_is_narrowed_down_to_the_last_head_within(runner):
    heads = ((0, 0), (1, 0), (1, 1), (0, 1))
    found = curve("explained", ONE, heads, row(40), plan(counts=(1, 4)), runner)
    assert [point.count for point in found.points] == [1, 2, 3, 4]
    assert found.within == 2
    assert curve("explained", Rung("map"), heads, row(40), plan(counts=(1, 4)), runner).points[1].count == 4, (
        "only what orders are compared by"
    )


def test_failures_and_time_that_is_over_are_said(tmp_path):
    def fail(model):
        raise ValueError("no such head")

    with pytest.raises(ValueError, match="no such head"):
        Runner(fail, "m", Store(tmp_path)).rows([Model.of({})], "words")
    slow = Runner(harm, "m", Store(tmp_path), crew=Crew(workers=0, budget=1e-9))
    with pytest.raises(Stopped, match=r"1 of 1 models .words. left.* run the same command again"):
        slow.rows([Model.of({(0, 0): ONE})], "words")


def test_offsets_that_restore_nothing_are_not_needed():
    needed = Needed.of((1, 2), row(40), row(10))
    assert needed.loss == pytest.approx(30 * 1.9 / 40)
    assert needed.interval[0] > 0
    same = Needed.of((1, 2), row(40), row(40))
    assert (same.loss, same.interval) == (0, (0, 0))


def test_each_of_several_offsets_is_given_back_alone(tmp_path):
    def measured(model):
        rung = dict(model.edits)[0, 0]
        return row(30 if rung == Rung("rank", 1) else 40 if rung.kind == "offsets" else 10)

    made = Curve("explained", Rung("offsets", 2), ((0, 0), (0, 1)), (), (), 1, 1)
    (found,) = minimality(made, Runner(measured, "m", Store(tmp_path)))
    assert [one.rank for one in found.offsets] == [1, 2]
    assert [one.loss for one in found.offsets] == pytest.approx([20 * 1.9 / 40, 0])
    assert [one.interval[0] > 0 for one in found.offsets] == [True, False]
    assert found.loss == pytest.approx(30 * 1.9 / 40)


def test_a_toy_says_how_many_heads_its_offsets_replace(tmp_path):
    """Heads of place can all be replaced by their map, those of content not; orders know it."""
    reader = Toy()
    wanted = plan_for(reader, rungs=["map", "uniform", "zero"], orders=["explained", "deviation", "random"], by="map",
                      single=["map"], layers=["map"], tolerance=1e-4)  # fmt: skip
    found = ablate(reader, noise(), noise(seed=2), plan=wanted, classes=False)
    for order in ("explained", "deviation"):
        first = found.curve(order, Rung("map"))
        assert {head for _, head in first.heads[:2]} == {0}
        assert first.within == 2
    assert found.alone(Rung("map")) == 2
    assert len(found.layers[Rung("map")]) == 2
    assert [one.head for one in found.needed] == [0, 0]
    assert all(one.interval[0] > 0 for one in found.needed), "places restore what uniform attention loses"
    retained = found.faithfulness(found.curve("explained", Rung("map")))
    assert set(retained) == {"retained", "uniform", "zero"}
    record = json.loads(found.save(tmp_path)[0].read_text())
    assert record["within"]["explained"] == {"heads": 2, "surely": 2}
    assert record["models_measured"] < record["models_asked"]
    assert "its own map" in str(found)
    assert len(list(tmp_path.glob("ablate.*"))) == 4


def test_a_model_with_its_own_classes_from_python():
    torch.manual_seed(0)
    model = create_model("vit_digits", depth=1)
    batches = [(torch.randn(8, 1, 8, 8), torch.arange(8) % 10)]
    found = ablate(model, batches, batches, plan=plan_for(Toy(), rungs=["offsets:1"], orders=["greedy"], single=[]))
    assert model.training, "as before"
    model.eval()
    assert found.intact.right.count("1") / 8 == float((model(batches[0][0]).argmax(1) == batches[0][1]).float().mean())
    assert found.curves[0].points[-1].loss is not None
    with pytest.raises(ValueError, match=r"no class logits.*--labels none"):
        ablate(dinov2(), *[[(torch.randn(4, 3, 28, 28), torch.arange(4) % 3)]] * 2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"orders": ["best"]}, "orders must be some of explained"),
        ({"orders": []}, "orders must be some of explained"),
        ({"rungs": ["half"]}, "a replacement must be one of"),
        ({"counts": [0]}, "counts must be from 1 to 4"),
        ({"counts": [5]}, "counts must be from 1 to 4"),
        ({"step": 0}, "step must be 1 or more"),
        ({"rounds": -1}, "rounds and tolerance 0 or more"),
    ],
)
def test_plans_that_cannot_be_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        plan_for(Toy(), **changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("ablate")
    save_dinov2(place / "dino")
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for level, name in enumerate(("dark", "bright")):
            (place / "data" / part / name).mkdir(parents=True)
            for i in range(12):
                pixels = rng.integers(100 * level, 100 * level + 60, (30, 28, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / "data" / part / name / f"{i}.png")
    return place


SHORT = ["--rungs", "[offsets:1,uniform]", "--orders", "[damage,random]", "--calibration", "8", "--images", "12"]


def test_the_command_fits_a_probe_and_goes_on_where_it_was(folder, capsys):
    words = [
        "ablate",
        f"hf:{folder / 'dino'}",
        "--data",
        f"folder:{folder / 'data'}",
        *SHORT,
        "--out",
        str(folder / "out"),
    ]
    assert main(words) == 2
    assert "--probe 1000" in capsys.readouterr().err
    assert main([*words, "--probe", "20", "--label", "a tiny one", "--publish", str(folder / "published.json")]) == 0
    printed = capsys.readouterr().out
    assert "a tiny one on folder:" in printed
    assert "linear probe: scikit-learn's LogisticRegression" in printed
    assert "alone, " in printed
    record = json.loads((folder / "published.json").read_text())
    assert record["score"] == 1
    assert record["hardware"]
    assert set(record["within"]) == {"damage", "random"}
    kept = {path: path.stat().st_mtime_ns for path in (folder / "out" / "cells").iterdir()}
    assert main([*words, "--probe", "20"]) == 0
    assert kept == {path: path.stat().st_mtime_ns for path in (folder / "out" / "cells").iterdir()}
    again = json.loads((folder / "out" / "ablate.json").read_text())
    assert again["curves"] == record["curves"]
    assert main([*words, "--probe", "20", "--labels", "none"]) == 2
    assert "leave out --labels none" in capsys.readouterr().err


def test_the_command_takes_images_without_classes_and_tests_on_others_than_it_calibrates_on(folder, capsys):
    images = ["ablate", f"hf:{folder / 'dino'}", "--data", f"images:{folder / 'data'}", "--labels", "none", "--out"]
    assert main([*images, str(folder / "none"), *SHORT]) == 0
    record = json.loads((folder / "none" / "ablate.json").read_text())
    assert (record["images"], record["calibration_images"], record["classes"]) == (12, 8, "none")
    assert record["curves"][0]["points"][0]["loss"] is None
    assert "cosine of features" in capsys.readouterr().out
    assert main([*images, str(folder / "no"), "--calibration", "100"]) == 2
    assert "has no images beyond the 100 that calibrate" in capsys.readouterr().err


def test_other_processes_open_what_is_measured_by_plain_values(folder, tmp_path):
    setup = Setup(f"hf:{folder / 'dino'}", f"folder:{folder / 'data'}", 4, 4, 0, "none", choosing=2)
    work = pickle.loads(pickle.dumps(partial(measured, Model.of({(0, 1): ONE}), setup=setup, folder=tmp_path)))
    found = work()
    assert len(found.cosines) == 4
    assert found == work()
