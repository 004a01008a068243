"""Tables 2 to 6 in small: the plan, a run that goes on, verdicts, and the record."""

import json
import tarfile
from dataclasses import replace

import pytest
import torch
from lightning_advice import LIGHTNING_ADVICE

from analyses.autoregression import command, criteria, judge, speed
from analyses.autoregression import train as training
from analyses.autoregression.plan import SETTINGS, Study, tasks
from analyses.autoregression.result import Autoregression
from analyses.autoregression.result import judge as judged
from analyses.autoregression.rows import take
from analyses.cells import HERE
from analyses.study.verdicts import FAILS, HOLDS, OPEN, UNTESTED

pytestmark = [pytest.mark.filterwarnings(line) for line in LIGHTNING_ADVICE]


def row(task, setting, seed, test, train=1.0):
    return {"task": task, "setting": setting, "seed": seed, "test": test, "train": train, "parameters": 1_000_000,
            "hardware": "none", "versions": {"torch": "0"}, "words": setting, "tables": [4]}  # fmt: skip


def test_every_claim_is_of_settings_that_are_trained():
    known = {(each.task, each.name) for each in SETTINGS}
    for claim in criteria.CLAIMS:
        assert {(claim.task, claim.lower), (claim.task, claim.higher)} <= known
        assert claim.measure in ("test", "train")
    for setting in SETTINGS:
        assert set(setting.tables) <= {2, 3, 4, 5, 6}


def test_runs_come_seed_by_seed_with_equally_many_symbols_a_step():
    todo = tasks(Study("text:none", seeds=2))
    assert len(todo) == 2 * len(SETTINGS)
    assert {task.recipe.seed for task in todo[: len(SETTINGS)]} == {0}
    assert len({task.name for task in todo}) == len(todo)
    for task in todo:
        symbols = task.recipe.data.batch_size * task.recipe.model.length
        assert symbols == {"pixels": 25_088, "text": 16_384}[task.setting.task]
    with pytest.raises(ValueError, match=r"study\.only must be of pixels-aft_local"):
        Study("text:none", only=("text-gru",))


def test_verdicts_need_a_difference_beyond_the_seeds_luck():
    rows = [
        *(row("text", "aft_local", seed, 2.0 + 0.001 * seed) for seed in range(3)),
        *(row("text", "aft_simple", seed, 2.3 + 0.002 * seed) for seed in range(3)),  # far above
        *(row("text", "attention", seed, 2.2 + 0.003 * seed) for seed in range(3)),  # claimed to be below
        *(row("text", "s1", seed, 2.0 + 0.1 * seed) for seed in range(3)),  # as the seed has it
        row("text", "performer", 0, 2.5),
    ]
    found = {verdict.claim.words: verdict for verdict in judged(rows)}
    holds = found["AFT-local beats AFT-simple on text"]
    assert holds.verdict == HOLDS
    assert holds.difference == pytest.approx(0.301)
    assert holds.interval[0] < 0.301 < holds.interval[1]
    assert found["The Transformer beats AFT-local on new text"].verdict == FAILS
    assert found["A window of 32 beats one of 1 on text"].verdict == OPEN
    assert found["AFT-local beats the Performer on text"].verdict == UNTESTED
    result = Autoregression(rows, ["text-t128-s0"], {"text": "a text"}, "abc")
    assert "2.0010 ± 0.0010" in str(result)
    record = result.record()
    assert next(each for each in record["settings"] if each["setting"] == "aft_local")["seeds"] == 3
    assert record["missing"] == ["text-t128-s0"]


def test_a_run_is_trained_measured_and_judged_once(tmp_path, capsys, monkeypatch):
    (tmp_path / "text.txt").write_text("it is written: " * 2000)
    study = Study(
        f"text:{tmp_path}/text.txt", tmp_path / "runs", seeds=1, accelerator="cpu", precision="32-true", share=0.001,
        only=("text-aft_simple",),
    )  # fmt: skip
    training.run(study, crew=HERE, out=tmp_path)
    rows, missing = training.read_rows(study)
    assert missing == []
    (found,) = rows
    assert found["test_symbols"] == 1500
    assert found["context"].startswith("each symbol is predicted from the 128 to 256 before it")
    assert not list((tmp_path / "runs").glob("*.state"))
    capsys.readouterr()
    training.run(study, crew=HERE, out=tmp_path)
    assert capsys.readouterr().out == ""  # nothing is left to train
    _, missing = training.read_rows(replace(study, seeds=2))
    assert missing == ["text-aft_simple-s1"]
    lent = replace(study, runs=tmp_path / "lent", rows=tmp_path / "rows.tar.gz")
    with tarfile.open(lent.rows, "w:gz") as archive:
        archive.add(study.runs, "runs")
    for source, there in ((study.runs, 1), (lent.rows, 1), (tmp_path / "autoregression.json", 1)):
        if source.suffix == ".json":
            command("judge", study, out=tmp_path)
        again = replace(lent, runs=lent.runs / source.stem, rows=source, text="text:elsewhere.txt")
        command("train", again, workers=0, out=tmp_path)
        assert f"{there} of {there} runs of {source} are taken over" in capsys.readouterr().out
        (same,), missing = training.read_rows(again)
        assert missing == []
        assert same["test"] == pytest.approx(found["test"], rel=1e-5)  # a published record has six digits
    other = replace(study, runs=tmp_path / "other", precision="bf16-mixed")
    assert take(study.runs, tasks(other)) == (0, 1)  # of another precision: it is trained here
    lent.rows.write_bytes(lent.rows.read_bytes()[:200])
    for source, words in (
        (lent.rows, "no tar that can be read"),
        (tmp_path / "none.json", "none"),
        (other.runs, "other"),
    ):
        with pytest.raises((ValueError, OSError), match=words):
            take(source, tasks(study))
    record = json.loads((tmp_path / "autoregression.json").read_text())
    assert len(record["registration"]) == 40
    assert {claim["verdict"] for claim in record["claims"]} == {UNTESTED}
    assert "text.txt (27,000 training symbols), 600 steps" in record["data"]["text"]
    monkeypatch.setattr(judge, "registration", lambda path: ("f" * 40, judge.datetime.now(judge.UTC)))
    with pytest.raises(ValueError, match="runs began before the criteria of commit ffffffffffff"):
        judge.run(study, crew=HERE, out=tmp_path)
    with pytest.raises(ValueError, match="has no runs; train them"):
        judge.run(replace(study, runs=tmp_path / "none"), crew=HERE, out=tmp_path)


def test_training_steps_are_timed_row_by_row_and_travel_with_the_record(tmp_path, monkeypatch):
    study = Study("text:none", tmp_path / "runs", seeds=1)
    with pytest.raises(ValueError, match="CUDA device, and there is none"):
        command("speed", study, out=tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    for name in ("empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(f"torch.cuda.{name}", lambda: None)
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda: 2**21)
    monkeypatch.setattr(speed, "environment", lambda device: {"hardware": device, "versions": {"torch": "0"}})

    def step(name, batch):
        if name == "aft_simple_24x256_t1024":
            raise RuntimeError("the lease is over")
        if batch > 8 or name == "transformer_24x256_h2":
            raise torch.OutOfMemoryError
        return 0.5

    monkeypatch.setattr(speed, "_step_seconds", step)
    with pytest.raises(RuntimeError, match="lease"):
        command("speed", study, out=tmp_path)
    rows = speed.read_speeds(study.runs)
    assert [(row["decoder"], row["batch"]) for row in rows][1:3] == [
        ("aft_simple_24x256_t3072", 8), ("transformer_24x256_h2", 0),
    ]  # fmt: skip
    assert (len(rows), rows[0]["milliseconds"], rows[0]["peak_memory_mib"]) == (6, 500, 2)
    named = {task.name: task for task in tasks(study)}["text-performer-s0"].identity()
    (tmp_path / "autoregression.json").write_text(json.dumps({"runs": [named], "speeds": rows}))
    elsewhere = replace(study, runs=tmp_path / "elsewhere")
    assert take(tmp_path / "autoregression.json", tasks(elsewhere)) == (1, 1)
    assert speed.read_speeds(elsewhere.runs) == rows
