"""The prune command and the resumable sweep, on a stand-in data set."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from pruning_cases import trained_like
from torch.utils.data import TensorDataset

import aft_lens.data
from aft_lens.checkpoint import load_checkpoint, save_checkpoint
from analyses.pruning import sweep
from analyses.pruning.command import command
from analyses.pruning.core import draw, time_core
from analyses.pruning.sweep import Plan, run_sweep


@pytest.fixture
def parents(tmp_path, monkeypatch):
    """Two tiny checkpoints, and images under the name that they record."""

    def images(count, seed):
        generator = torch.Generator().manual_seed(seed)
        return TensorDataset(
            torch.randn(count, 1, 8, 8, generator=generator), torch.randint(0, 10, (count,), generator=generator)
        )

    source = SimpleNamespace(train=images(40, 0), test=images(30, 1))
    monkeypatch.setattr(aft_lens.data, "load_data", lambda *_args, **_options: source, raising=False)
    paths = []
    for seed, kind in enumerate(("free", "single")):
        data = {"name": "noise", "img_size": 8}
        recipe = {"name": f"noise-{kind}"}
        paths.append(
            save_checkpoint(
                tmp_path / kind, trained_like(kind), data=data, recipe=recipe, seed=seed, metrics=[{"loss": 1.0}]
            )
        )
    return paths


def test_command_prints_the_ladder_and_writes_a_checkpoint_that_loads(parents, tmp_path, capsys):
    out = tmp_path / "out"
    command(parents[0], keep=1, criterion="taylor", finetune=1, images=20, export=True, out=out)
    text = capsys.readouterr().out
    assert "fine-tuned" in text
    assert "pure indexing x 2" in text
    assert "onnx: max |Δlogit|" in text
    loaded = load_checkpoint(out / "model")
    assert loaded.config.keep == (1, 1)
    assert loaded.recipe["pruned_from"] == "free"
    assert json.loads((out / "ladder.json").read_text())["images"] == 20
    with pytest.raises(ValueError, match="out must name"):
        command(parents[0], export=True)


def test_sweep_resumes_without_repeating_a_rung(parents, tmp_path, monkeypatch):
    plan = Plan(
        checkpoints=tuple(map(str, parents)),
        criteria=("magnitude", "random"),
        schedules=("one-shot", "iterative"),
        keeps=(4, 1),
        finetune_epochs=1,
        seconds=0.0,
        calibration=16,
        save_models=True,
    )
    out = tmp_path / "out"
    runs = []
    run = sweep._run

    def killed_after_three(*arguments):
        if len(runs) == 3:
            raise KeyboardInterrupt
        runs.append(arguments[4:])
        return run(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(sweep, "_run", killed_after_three)
        with pytest.raises(KeyboardInterrupt):
            run_sweep(plan, out)
    assert len(list((out / "rungs").glob("*.json"))) == 3
    again = []
    monkeypatch.setattr(sweep, "_run", lambda *arguments: (again.append(arguments[4:]), run(*arguments))[1])
    rows = run_sweep(plan, out, line="the line")
    assert len(rows) == 16
    assert len(again) == 13
    again.clear()
    assert run_sweep(plan, out, line="the line") == json.loads(json.dumps(rows))
    assert not again
    record = json.loads((out / "ladder.json").read_text())
    assert record["command"] == "the line"
    assert record["max_abs_logit_difference"] <= 1e-5
    assert {row["recipe"] for row in record["rungs"]} == {"noise-free", "noise-single"}
    assert {row["form"] for row in record["rungs"] if row["keep"] == 1} == {"pure indexing x 2"}
    for name in ("plan.yaml", "ladder.csv", "curve.png", "curve.svg", "index.html"):
        assert (out / name).stat().st_size > 100
    model = load_checkpoint(out / "models" / "free-magnitude-head-iterative-1").model
    assert model.config.keep == (1, 1)
    changed = Plan(**{**plan.__dict__, "checkpoints": plan.checkpoints[:1], "seed": 1, "criteria": ("magnitude",)})
    run_sweep(changed, out)
    assert len(again) == 4


def test_plan_refuses_what_cannot_run():
    with pytest.raises(ValueError, match="schedules must be"):
        Plan(checkpoints=("a",), schedules=("sometimes",))
    with pytest.raises(ValueError, match="finetune_epochs"):
        Plan(checkpoints=("a",), schedules=("iterative",))
    with pytest.raises(ValueError, match="checkpoints"):
        Plan(checkpoints=())


def test_commands_show_their_help():
    for module in ("analyses.pruning", "analyses.pruning.sweep"):
        shown = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True)
        assert "usage" in shown.stdout


def test_core_timing_finds_the_crossover(tmp_path):
    found = time_core(batch=2, side=6, dim=8, heads=4, window=5, keeps=(0, 1, 16), seconds=0.0)
    assert [row.keep for row in found.rows if row.form == "gather"] == [0, 1, 16]
    assert found.speedup(1, "fastest") <= found.speedup(1, "matmul")
    assert found.crossover in (None, 0, 1, 16)
    assert all(path.stat().st_size for path in found.save(tmp_path))
    draw([found, found])
    with pytest.raises(ValueError, match="multiple of heads"):
        time_core(dim=10, heads=4)
    with pytest.raises(ValueError, match="at most the window"):
        time_core(window=3, keeps=(10,))
