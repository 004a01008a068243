"""The study of the paper's claims: plan, verdicts on known numbers, training, budget, resuming and the table."""

import json
import math
import multiprocessing
import shutil
from dataclasses import replace

import numpy as np
import pytest

from aft_lens.checkpoint import load_checkpoint, read_metrics, read_snapshots
from analyses.provenance import visible_gpu
from analyses.study import Study, claims, command
from analyses.study import train as driver
from analyses.study.claims import CLAIMS, FAILS, HOLDS, METRICS, OPEN, Claim, decide, judge, pooled_deviation
from analyses.study.plan import CONFIGURATIONS, tasks
from analyses.study.table import markdown

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{line}")
    for line in (".*does not have many workers.*", ".*treespec, LeafSpec.*", ".*litlogger.*")
]


def smoke(tmp_path, **changes):
    fields = {"family": "digits", "seeds": 2, "epochs": 2, "long_epochs": 0, "accelerator": "cpu"}
    fields["batch_size"] = 8
    return Study(**{"runs": tmp_path / "runs", "only": ("vit", "conv"), "limit_batches": 1, **fields, **changes})


def found(configuration, seed, accuracy, **more):
    recipe = {"model": {"img_size": 28, "patch_size": 2}}
    base = {"configuration": configuration, "seed": seed, "accuracy": accuracy, "long": False, "recipe": recipe}
    place = {"uniform_distance": 2.0, "distance": 2.0, "map": [[1, 2], [3, 4]]}
    return {**base, "sizes": {}, "places": place, **more}


def test_every_configuration_is_a_recipe_of_its_own_with_valid_names():
    plan = tasks(Study(accelerator="cpu"))
    assert len(plan) == 3 * len(CONFIGURATIONS) + 5
    assert len({task.name for task in plan}) == len(plan)
    assert [(task.name, task.long, task.recipe.seed) for task in plan[:5]] == [
        (f"fashion-{name}", True, 0) for name in ("vit", "conv", "full", "single", "entropy")
    ]
    assert [task.configuration.name for task in plan[5::3]] == [configuration.name for configuration in CONFIGURATIONS]
    assert [task.recipe.seed for task in plan[5:8]] == [0, 1, 2]
    models = {task.configuration.name: task.recipe.model for task in plan}
    assert len({str(task.recipe.model) for task in plan}) == len(CONFIGURATIONS) - 2  # transfer, entropy: conv's model
    assert models["w27"].window_size == 27
    assert models["w27"].grid_size == 14
    assert models["h96"].num_heads == models["h96"].embed_dim
    assert models["w7-only"].outside == "none"
    assert models["no-query"].use_query is False
    assert {task.recipe.sparsity.entropy_weight for task in plan if task.configuration.name == "entropy"} == {0.001}
    assert all(task.recipe.data.resident and task.recipe.data.augment == "flip-crop" for task in plan)
    lengths = {task.configuration.name: task.recipe.trainer.epochs for task in plan if task.long}
    assert lengths.pop("vit") == 100
    assert set(lengths.values()) == {Study().long_epochs}
    names = {configuration.name for configuration in CONFIGURATIONS}
    for claim in CLAIMS:
        assert claim.control in names
        assert claim.treatment in names or claim.metric == "larger"


def test_no_claim_is_left_unjudged_once_every_run_is_there():
    place = {"map": np.eye(3).tolist(), "distance": 1.0, "uniform_distance": 1.5, "entropy": 3.0}
    sizes = {"42": 91.0, "56": 90.0}
    rng = np.random.default_rng(0)
    runs = [
        found(c.name, seed, 92 + 0.1 * rng.normal(), places=place, sizes=sizes)
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


def test_paired_interval_is_students():
    low, high = claims.paired_interval([1.0, 2.0, 3.0])
    assert (low + high) / 2 == pytest.approx(2.0)
    assert (high - low) / 2 == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)


def test_unpaired_interval_takes_the_larger_deviation_and_the_pooled_degrees():
    calm, wild = [90.0, 90.2, 90.4], [88.0, 90.0, 92.0]
    pooled = pooled_deviation([calm, wild])
    assert pooled == (pytest.approx(math.sqrt((2 * 0.04 + 2 * 4.0) / 4)), 4)
    low, high = claims.unpaired_interval(calm, wild, pooled)
    error = math.sqrt(pooled[0] ** 2 / 3 + 4.0 / 3)
    assert (high - low) / 2 == pytest.approx(2.776445 * error, rel=1e-6)
    assert (low + high) / 2 == pytest.approx(0.2)


def test_intervals_cover_at_their_level():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(400):
        groups = rng.normal(92, 0.2, (8, 3)).tolist()
        low, high = claims.unpaired_interval(groups[0], groups[1], pooled_deviation(groups))
        hits += low <= 0 <= high
    assert 0.93 < hits / 400 <= 1.0


def test_judging_by_accuracy_and_by_the_other_metrics():
    runs = [found("conv", seed, 92 + 0.01 * seed) for seed in range(3)]
    runs += [found("vit", seed, 90 + 0.01 * seed) for seed in range(3)]
    runs += [found("no-query", 0, 80.0), {**found("conv", 0, 10.0), "long": True}]
    verdicts = {verdict.claim.words: verdict for verdict in judge(runs)}
    assert [v.claim.metric for v in verdicts.values()] == ["accuracy", "local", "local", "agree"]
    verdict = verdicts[CLAIMS[0].words]
    assert verdict.verdict == HOLDS
    assert verdict.difference == pytest.approx(2.0)
    assert verdict.treatment == (pytest.approx(92.01), pytest.approx(0.01))
    table = {
        "conv": {s: found("conv", s, 90.0, sizes={"42": 91.0, "56": 89.0},
                          places={"entropy": 4.0, "map": [[1, 2], [3, 4]]}) for s in range(2)},
        "entropy": {0: found("entropy", 0, 90.0, places={"entropy": 1.5})},
        "vit": {1: found("vit", 1, 90.0, places={"distance": 2.0, "uniform_distance": 3.0, "map": [[4, 3], [2, 1]]})},
    }  # fmt: skip
    assert METRICS["larger"](Claim("", "", "", "1.5", "conv"), table) == [(91.0, 90.0)] * 2
    assert METRICS["sparser"](Claim("", "", "", "entropy", "conv"), table) == [(4.0, 1.5)]
    assert METRICS["local"](Claim("", "", "", "vit", "vit"), table) == [(3.0, 2.0)]
    assert METRICS["agree"](Claim("", "", "", "conv", "vit"), table) == [(pytest.approx(-1.0), 0.0)]


def test_the_study_trains_once_and_goes_on(tmp_path, capsys, monkeypatch):
    study, out = smoke(tmp_path), tmp_path / "out"
    started = []

    def cut(task):
        """Train as ever, but break off the second run in its second epoch."""
        started.append(task.name)
        if task.name == "vit-s1" and started.count(task.name) == 1:
            with monkeypatch.context() as patch:
                patch.setattr("aft_lens.training.keeper.CheckpointKeeper.on_train_epoch_start", _break, raising=False)
                return original(task)
        return original(task)

    def _break(self, trainer, module):
        if trainer.current_epoch == 1:
            raise RuntimeError("power cut")

    original = driver.execute
    monkeypatch.setattr(driver, "execute", cut)
    with pytest.raises(ValueError, match="vit-s1: RuntimeError: power cut"):
        command("paper-claims", study=study, workers=0, out=out)
    record = json.loads((out / "claims.json").read_text())
    assert len(record["runs"]) == 3
    assert record["missing"] == ["vit-s1"]
    command("paper-claims", study=study, workers=0, out=out)
    assert sorted(started) == ["conv-s0", "conv-s1", "vit-s0", "vit-s1", "vit-s1"]
    record = json.loads((out / "claims.json").read_text())
    assert record["missing"] == []
    runs = {(run["configuration"], run["seed"]): run for run in record["runs"]}
    assert runs["vit", 1]["resumed"] is True
    assert runs["vit", 0]["resumed"] is False
    for run in runs.values():
        assert run["epochs"] == 2
        assert 0 <= run["accuracy"] <= 100
        assert run["images_per_second"] > 0
        assert run["hardware"]
    assert sorted(runs["conv", 0]["sizes"]) == ["12", "16"]
    assert load_checkpoint(study.runs / "conv-s0").config.mixer == "aft_conv"
    assert len(read_metrics(study.runs / "vit-s1")) == 2
    assert "1.5 times larger" in capsys.readouterr().out
    with pytest.raises(ValueError, match="another --study"):
        command("paper-claims", study=replace(study, epochs=3), workers=0, out=out)
    command("claims-table", out=out)
    assert capsys.readouterr().out == markdown(record) + "\n"
    assert f"| ViT | {runs['vit', 0]['parameters']:,} | 2 | 2 |" in markdown(record)


def test_runs_that_ship_keep_weights_snapshots_and_samples_others_only_what_is_needed(tmp_path):
    study = smoke(tmp_path, seeds=1, only=("conv", "w7"), long_epochs=1, epochs=1)
    command("paper-claims", study=study, workers=1, out=tmp_path)
    record = json.loads((tmp_path / "claims.json").read_text())
    assert record["missing"] == []
    assert {run["configuration"] for run in record["runs"]} == {"conv", "w7"}
    left = {path.name for path in study.runs.iterdir() if path.is_dir()}
    assert left == {"digits-conv", "conv-s0"}  # neither w7's weights nor any run's resume file
    path = study.runs / "digits-conv"
    assert load_checkpoint(path).config.mixer == "aft_conv"
    assert len(list((path / "samples").glob("*.png"))) == 32
    assert read_snapshots(path)
    assert "test_accuracy" in (path / "card.md").read_text()


def test_a_budget_ends_the_processes_and_the_rest_is_left(tmp_path, capsys):
    study, before = smoke(tmp_path, epochs=500), set(multiprocessing.active_children())
    command("paper-claims", study=study, workers=1, budget=2, out=tmp_path)
    assert set(multiprocessing.active_children()) == before
    assert "4 runs left" in capsys.readouterr().out


def test_runs_wait_for_the_vit_and_for_time_enough(tmp_path):
    plan = {task.name: task for task in tasks(smoke(tmp_path, only=("transfer",)))}
    done = {"vit-s0": {"configuration": "vit", "seconds": 20.0, "epochs": 2, "resumed": False}}
    assert driver._may_start(plan["transfer-s0"], done)
    assert not driver._may_start(plan["transfer-s1"], done)
    assert driver._fits(plan["vit-s1"], done, 24.0)
    assert not driver._fits(plan["vit-s1"], done, 22.0)
    assert driver._fits(plan["vit-s1"], {}, 1.0)


def test_speed_is_measured_by_training(tmp_path, capsys):
    study = smoke(tmp_path, only=())
    command("speed", study=study, out=tmp_path)
    record = json.loads((tmp_path / "training_speed.json").read_text())
    assert [row["model"] for row in record["rows"]] == [
        "AFT-conv tiny 11/32", "AFT-conv of the study", "ViT of the study",
    ]  # fmt: skip
    assert all(rate > 0 for row in record["rows"] for rate in row["images_per_second"])
    assert "images/s" in capsys.readouterr().out


def test_input_at_fault(tmp_path):
    with pytest.raises(ValueError, match="resnet"):
        Study(only=("resnet",))
    with pytest.raises(ValueError, match=r"study\.family"):
        Study(family="mnist")
    with pytest.raises(ValueError, match="seeds"):
        Study(seeds=0)
    with pytest.raises(ValueError, match="budget"):
        command("paper-claims", budget=-1)
    with pytest.raises(FileNotFoundError, match="paper-claims"):
        command("claims-table", out=tmp_path)
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize(("named", "expected"), [("", ["0", "1", "0"]), ("5,7", ["5", "7", "5"])])
def test_workers_take_gpus_in_turn(monkeypatch, named, expected):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert [visible_gpu(number) for number in range(3)] == expected
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert visible_gpu(0) is None
