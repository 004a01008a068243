"""The study trains once, within a budget, and goes on after a kill; what follows is read from its runs."""

import json
import multiprocessing
from dataclasses import replace

import pytest
from study_cases import run as of_study
from study_cases import smoke

from aft_lens.checkpoint import load_checkpoint, read_first, read_metrics
from aft_lens.errors import InputError
from analyses.provenance import RESULTS, commanded
from analyses.published.sections import SECTIONS
from analyses.study import command, worker
from analyses.study import judge as judging
from analyses.study.plan import tasks
from analyses.study.record import Run
from analyses.study.result import Judged
from analyses.study.rows import take_over
from analyses.study.speed import TrainingSpeed
from analyses.study.tables import configuration_table
from analyses.study.train import read_runs

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{line}")
    for line in (".*does not have many workers.*", ".*treespec, LeafSpec.*", ".*litlogger.*")
]


def test_the_study_trains_once_goes_on_and_is_judged(tmp_path, capsys, monkeypatch):
    study, out = smoke(tmp_path), tmp_path / "out"
    started, original = [], worker.execute

    def cut(task):
        """Train as ever, but break off the second run of the ViT in its second epoch."""
        started.append(task.name)
        if task.name == "digits-claims-vit-s1" and started.count(task.name) == 1:
            with monkeypatch.context() as patch:
                patch.setattr(
                    "aft_lens.training.checkpointing.Checkpointing.on_train_epoch_start", _break, raising=False
                )
                return original(task)
        return original(task)

    def _break(self, trainer, module):
        if trainer.current_epoch == 1:
            raise RuntimeError("power cut")

    monkeypatch.setattr("analyses.study.train.execute", cut)
    with pytest.raises(ValueError, match="digits-claims-vit-s1: RuntimeError: power cut"):
        command("train", study=study, workers=0)
    assert len(read_runs(study)) == 3
    command("train", study=study, workers=0)
    assert len(started) == 5
    runs = {(run.configuration, run.seed): run for run in read_runs(study)}
    assert runs["vit", 1].resumed is True
    assert runs["vit", 0].resumed is False
    for run in runs.values():
        assert run.epochs == 2
        assert run.accuracy == pytest.approx(100 * run.rights().mean())
        assert run.images_per_second > 0
    conv = runs["conv", 0]
    assert list(conv.pruned) == ["1", "2", "4", "8", "16"]
    assert conv.places.positions == 49
    assert len(conv.places.nearness) == 3
    assert 0 <= conv.places.without <= 100
    assert load_checkpoint(study.runs / "digits-claims-vit-s0").config.mixer == "attention"  # transfer starts from it
    assert not (study.runs / "digits-claims-conv-s0").exists()
    monkeypatch.setattr(judging, "registration", lambda: ("abc", judging.datetime.min.replace(tzinfo=judging.UTC)))
    capsys.readouterr()
    with commanded("aft-lens", "study", "judge"):
        command("judge", study=smoke(tmp_path, only=()), out=out)
    record = json.loads((out / "claims.json").read_text())
    assert record["command"] == "aft-lens study judge"
    assert record["preregistration"] == "abc"
    assert "digits-claims-w3-s0" in record["missing"]
    shown = capsys.readouterr().out
    command("claims-table", out=out)
    assert capsys.readouterr().out == shown
    assert "runs of the plan are not made yet" in shown
    again = smoke(tmp_path, only=(), runs=tmp_path / "again", rows=out / "claims.json")
    for only, taken in ((("vit",), "2 of 4"), ((), "0 of 4")):
        take_over(replace(again, only=only))
        assert f"{taken} runs on digits" in capsys.readouterr().out, (
            "what is to be trained starts from the ViT's weights"
        )
    restored = {(run.configuration, run.seed): run.accuracy for run in read_runs(again)}
    assert restored == {("conv", seed): pytest.approx(runs["conv", seed].accuracy) for seed in (0, 1)}
    rows = configuration_table([Run.read(run) for run in record["runs"]]).rows
    assert ["ViT", "digits (small, to try a study)", f"{runs['vit', 0].parameters:,}", "2", "2"] in [
        r[:5] for r in rows
    ]


def test_tuning_chooses_by_validation_images_and_controls_and_rivals_follow(tmp_path, capsys, monkeypatch):
    fields = {"epochs": 1, "seeds": 1}
    tuning = smoke(tmp_path, plan="tuning", only=("vit",), **fields)
    monkeypatch.setattr("analyses.study.plan.PLAIN_RATES", ((0.001, 1.0),))
    command("train", study=tuning, workers=0)
    monkeypatch.setattr("analyses.study.plan.PLAIN_RATES", ((0.001, 1.0), (0.002, 1.0)))
    with pytest.raises(ValueError, match="for all rates of a configuration; train them"):
        command("tuning", study=tuning, out=tmp_path)
    assert "vit: 1 of 2 pairs are tried" in capsys.readouterr().out
    command("train", study=tuning, workers=0)
    command("tuning", study=tuning, out=tmp_path)
    chosen = json.loads((tmp_path / "tuning.json").read_text())["chosen"]["digits"]["vit"]
    assert len(chosen["tried"]) == 2
    assert chosen["val_accuracy"] == max(row["val_accuracy"] for row in chosen["tried"])
    assert "on the edge of what was tried: learning rate" in capsys.readouterr().out
    sparse = smoke(tmp_path, plan="sparsity", only=("conv", "ring", "spaced-2"), **fields)
    command("train", study=sparse, workers=0)
    command("rivals", study=sparse, out=tmp_path)
    record = json.loads((tmp_path / "sparse_rivals.json").read_text())
    assert "learnable spacings (DCLS)" in SECTIONS["sparse_rivals"].content(record)
    points = record["points"]
    positions = {point["setting"]: point["positions"] for point in points}
    assert (positions["ring"], positions["conv"]) == (1, 49)
    assert positions["spaced-2"] <= 2
    assert "Positions a head" in capsys.readouterr().out


def test_models_that_ship_keep_weights_start_and_samples_and_transfer_takes_the_vit_s(tmp_path):
    study = smoke(tmp_path, plan="long", seeds=1, only=("conv",), epochs=1)
    command("train", study=study, workers=1)
    path = study.runs / "digits-long-conv-s0"
    assert load_checkpoint(path).config.mixer == "aft_conv"
    assert len(list((path / "samples").glob("*.png"))) == 32
    assert read_first(path)
    assert "test_accuracy" in (path / "card.md").read_text()
    assert not path.with_name(f"{path.name}.state").exists()
    claims = smoke(tmp_path, seeds=1, only=("transfer", "crops"), epochs=1)
    command("train", study=claims, workers=0)
    runs = {run.configuration: run for run in read_runs(claims)}
    assert sorted(runs) == ["crops", "transfer", "vit"]
    assert list(runs["crops"].sizes) == ["8"]
    assert runs["crops"].recipe["model"]["img_size"] == 6
    assert read_metrics(study.runs / "digits-claims-vit-s0")


def test_a_budget_ends_the_processes_and_the_rest_is_left(tmp_path, capsys):
    study, before = smoke(tmp_path, epochs=500), set(multiprocessing.active_children())
    command("train", study=study, workers=1, budget=2)
    assert set(multiprocessing.active_children()) == before
    assert "4 runs left" in capsys.readouterr().out


def test_speed_is_measured_by_training(tmp_path, capsys):
    study = smoke(tmp_path, only=())
    command("speed", study=study, out=tmp_path)
    record = json.loads((tmp_path / "training_speed.json").read_text())
    assert [row["model"] for row in record["rows"]] == [
        "AFT-conv tiny 11/32", "AFT-conv of the study", "ViT of the study",
    ]  # fmt: skip
    assert all(rate > 0 for row in record["rows"] for rate in row["images_per_second"])
    assert "images/s" in capsys.readouterr().out


def test_the_published_speeds_are_read_and_written_as_they_are():
    published = json.loads((RESULTS / "training_speed.json").read_text())
    result = TrainingSpeed.read(published)
    assert json.loads(json.dumps(result.record())) == published
    assert "60,967" in str(result)
    assert [text.get_text() for text in result.figure().axes[0].texts] == [row[4] for row in result.table().rows]
    assert len(result.interactive().data[0].x) == len(result.rows)


def test_only_rows_of_today_s_recipes_are_taken_over(tmp_path, capsys):
    (task, _) = tasks(smoke(tmp_path, only=("conv",)))
    made = of_study("conv", 0, 50.0, family="digits", recipe=task.identity()["recipe"])
    study = smoke(tmp_path, only=("conv",), rows=tmp_path / "claims.json")
    for change, taken in (
        ({"epochs": 3}, "0 of 1"),
        ({"configuration": "w3"}, "0 of 1"),
        ({}, "1 of 1"),
        ({}, "0 of 1"),
    ):
        one = replace(made, **change)
        Judged("claims", "", "", [], {"torch": "2"}, [], [one]).write_record(tmp_path / "claims.json")
        take_over(study)
        assert taken in capsys.readouterr().out
    assert [run.accuracy for run in read_runs(study)] == [50.0]
    (tmp_path / "claims.json").write_text("{}")
    with pytest.raises(InputError, match="has no rows of runs"):
        take_over(study)
