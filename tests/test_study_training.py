"""The study trains once, within a budget, and goes on after a kill; its speed is measured by training."""

import json
import multiprocessing
from dataclasses import replace

import pytest
from study_cases import run as finished
from study_cases import smoke

from aft_lens.checkpoint import load_checkpoint, read_metrics, read_snapshots
from analyses.provenance import RESULTS, commanded
from analyses.study import command
from analyses.study import train as driver
from analyses.study.plan import tasks
from analyses.study.record import Run
from analyses.study.result import PaperClaims
from analyses.study.speed import TrainingSpeed
from analyses.study.tables import configuration_table

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{line}")
    for line in (".*does not have many workers.*", ".*treespec, LeafSpec.*", ".*litlogger.*")
]


def test_the_study_trains_once_and_goes_on(tmp_path, capsys, monkeypatch):
    study, out = smoke(tmp_path), tmp_path / "out"
    started = []

    def cut(task):
        """Train as ever, but break off the second run in its second epoch."""
        started.append(task.name)
        if task.name == "vit-s1" and started.count(task.name) == 1:
            with monkeypatch.context() as patch:
                patch.setattr(
                    "aft_lens.training.checkpointing.Checkpointing.on_train_epoch_start", _break, raising=False
                )
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
    with commanded("aft-lens", "study", "paper-claims"):
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
    assert record["command"] == "aft-lens study paper-claims"
    assert sorted(runs["conv", 0]["sizes"]) == ["12", "16"]
    assert load_checkpoint(study.runs / "conv-s0").config.mixer == "aft_conv"
    assert len(read_metrics(study.runs / "vit-s1")) == 2
    assert "1.5 times larger" in capsys.readouterr().out
    with pytest.raises(ValueError, match="of a run with other epochs; choose another --study"):
        command("paper-claims", study=replace(study, epochs=3), workers=0, out=out)
    command("claims-table", out=out)
    assert capsys.readouterr().out == PaperClaims.read(record).markdown() + "\n"
    rows = configuration_table([Run.read(run) for run in record["runs"]]).rows
    assert ["ViT", f"{runs['vit', 0]['parameters']:,}", "2", "2"] in [row[:4] for row in rows]


def test_runs_of_a_version_without_fingerprints_are_refused_in_words(tmp_path):
    study = smoke(tmp_path)
    task = tasks(study)[0]
    path = task.store.path(task.name)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({**task.identity(), "accuracy": 90.0}))
    with pytest.raises(ValueError, match=r"no fingerprint of this run.*choose another --study\.runs"):
        command("paper-claims", study=study, workers=0, out=tmp_path)
    path.write_text(json.dumps({**task.identity(), "epochs": 3}))
    with pytest.raises(ValueError, match="other epochs"):
        command("paper-claims", study=study, workers=0, out=tmp_path)
    assert json.loads(path.read_text())["epochs"] == 3


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
    done = {"vit-s0": finished("vit", 0, 90.0, seconds=20.0, epochs=2)}
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


def test_the_published_speeds_are_read_and_written_as_they_are():
    published = json.loads((RESULTS / "training_speed.json").read_text())
    result = TrainingSpeed.read(published)
    assert json.loads(json.dumps(result.record())) == published
    assert "60,967" in str(result)
    assert [text.get_text() for text in result.figure().axes[0].texts] == [row[4] for row in result.table().rows]
    assert len(result.interactive().data[0].x) == len(result.rows)
