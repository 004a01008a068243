"""The prune command and the resumable sweep, on a stand-in data set."""

import json
import runpy
import sys
from dataclasses import replace

import pytest
import torch
from pruning_cases import trained_like

import aft_lens.data
from aft_lens.checkpoint import load_checkpoint, save_checkpoint
from aft_lens.data import from_tensors
from analyses.provenance import RESULTS, commanded
from analyses.pruning import CRITERIA
from analyses.pruning.command import command
from analyses.pruning.evidence import findings, latencies, publish, rungs, sweep
from analyses.pruning.evidence.curves import curves
from analyses.pruning.evidence.plan import Plan
from analyses.pruning.evidence.publish import read_publication
from analyses.pruning.evidence.row import RungRow
from analyses.pruning.evidence.sweep import run_sweep
from analyses.pruning.measuring.operator_timing import time_core


@pytest.fixture
def parents(tmp_path, monkeypatch):
    """Two tiny checkpoints, and images under the name that they record."""

    def images(count, seed):
        generator = torch.Generator().manual_seed(seed)
        return (
            torch.randint(0, 256, (count, 1, 8, 8), generator=generator, dtype=torch.uint8),
            torch.randint(0, 10, (count,), generator=generator),
        )

    splits = {"train": images(40, 0), "val": images(10, 2), "test": images(30, 1)}
    source = from_tensors("digits", [*"0123456789"], splits, img_size=8, augment="none", words="random")
    monkeypatch.setattr(aft_lens.data, "load_data", lambda *_args, **_options: source, raising=False)
    paths = []
    for seed, kind in enumerate(("free", "single")):
        data = {"name": "noise", "img_size": 8}
        recipe = {"sparsity": {"entropy_weight": 0.001 * (kind == "free")}}
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
    with pytest.raises(FileExistsError, match="choose another --out"):
        command(parents[0], out=out)
    for steps in ((0.5, 2), (2, 4), (1,)):
        with pytest.raises(ValueError, match="steps must fall and end above keep 1"):
            command(parents[0], steps=steps, finetune=1, images=20)


def test_sweep_resumes_without_repeating_a_rung(parents, tmp_path, monkeypatch):
    plan = Plan(
        checkpoints=tuple(map(str, parents)),
        criteria=("magnitude", "random"),
        schedules=("one-shot", "iterative"),
        keeps=(4, 1),
        finetune=1,
        seconds=0.0,
        calibration=16,
        save_models=True,
    )
    out = tmp_path / "out"
    runs = []
    row = rungs.Parent.row

    def killed_after_three(*arguments):
        if len(runs) == 3:
            raise KeyboardInterrupt
        runs.append(arguments[1])
        return row(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(rungs.Parent, "row", killed_after_three)
        with pytest.raises(KeyboardInterrupt):
            run_sweep(plan, out)
    assert len(list((out / "rungs").glob("*.json"))) == 3
    again = []
    monkeypatch.setattr(rungs.Parent, "row", lambda *arguments: (again.append(arguments[1]), row(*arguments))[1])
    assert not any(row.latencies for row in run_sweep(plan, out, times="none"))
    rows = run_sweep(plan, out)
    assert all(len(row.latencies["indexed"]) == 2 for row in rows)
    retimed = run_sweep(replace(plan, checkpoints=plan.checkpoints[:1]), out, times="all")
    assert retimed[0].latencies != rows[0].latencies
    with commanded("the", "line"):
        rows = run_sweep(plan, out)
    assert len(rows) == 16
    assert len(again) == 13
    again.clear()
    with commanded("the", "line"):
        assert run_sweep(plan, out) == rows
    assert not again
    record = json.loads((out / "ladder.json").read_text())
    assert record["command"] == "the line"
    assert record["max_abs_logit_difference"] <= 1e-5
    assert {row["parent"] for row in record["rungs"]} == {"entropy", "single position"}
    columns = (out / "ladder.csv").read_text().splitlines()[0].split(",")
    assert {"accuracy_parent_low", "difference_finetuned_high", "indexed_cpu_batch_64_median_ms"} <= set(columns)
    assert {row["form"] for row in record["rungs"] if row["keep"] == 1} == {"pure indexing x 2"}
    for name in ("plan.yaml", "ladder.csv", "curve.png", "curve.svg", "index.html"):
        assert (out / name).stat().st_size > 100
    model = load_checkpoint(next((out / "models").glob("free-*-magnitude-head-iterative-1"))).model
    assert model.config.keep == (1, 1)
    changed = Plan(**{**plan.__dict__, "checkpoints": plan.checkpoints[:1], "seed": 1, "criteria": ("magnitude",)})
    run_sweep(changed, out)
    assert len(again) == 4


def test_rungs_that_keep_the_same_offsets_are_measured_and_timed_once(parents, tmp_path, monkeypatch):
    plan = Plan(checkpoints=(str(parents[0]),), keeps=(25, 1), seconds=0.0, calibration=4)
    measured, timed = [], []
    measure, time = rungs.measure_masks, latencies._time
    monkeypatch.setattr(rungs, "measure_masks", lambda *a, **k: (measured.append(a), measure(*a, **k))[1])
    monkeypatch.setattr(latencies, "_time", lambda *a: (timed.append(a), time(*a))[1])
    rows = run_sweep(plan, tmp_path / "out")
    assert [row.keep for row in rows] == [25, 1] * 3
    assert [row.criterion for row in rows] == [name for name in plan.criteria for _ in range(2)]
    assert len(measured) == 4
    assert len(timed) == 2
    assert len(list((tmp_path / "out" / "rungs").glob("*.json"))) == 6, "a twin has a row of its own"
    assert rows[0].accuracy_pruned == rows[2].accuracy_pruned == rows[0].accuracy_parent
    with monkeypatch.context() as patch:
        patch.setattr(sweep, "opened", None)  # nothing is left to run
        assert run_sweep(plan, tmp_path / "out") == rows


def test_publish_writes_the_record_and_the_curve(parents, tmp_path, monkeypatch, capsys):
    names = [str(parents[1])]
    for seed in (1, 2):
        torch.manual_seed(seed)
        loaded = load_checkpoint(parents[0])
        path = tmp_path / f"free-{seed}"
        names.append(str(save_checkpoint(path, loaded.model, data=loaded.data, recipe={}, seed=seed, metrics=[])))
    sweeps = {"only": {"checkpoints": names, "criteria": ["magnitude"], "keeps": [4, 1], "seconds": 0.0}}
    (tmp_path / "tiny.yaml").write_text(json.dumps({"sweeps": sweeps, "gumbel": {"fixed": names[:1]}}))
    core = time_core(batch=1, side=4, dim=4, heads=2, window=3, keeps=(1,), seconds=0.0)
    monkeypatch.setattr(publish, "time_core", lambda **_options: core)
    monkeypatch.setattr(findings, "WHOLE_MODEL", "aft_conv_digits")
    monkeypatch.setattr(findings, "exports", lambda *_arguments: [])
    options = {"out": tmp_path / "out", "result": tmp_path / "r.json", "figure": tmp_path / "f.png"}
    publish.command(str(tmp_path / "tiny.yaml"), times="none", **options)
    assert not options["result"].exists()
    publish.command(str(tmp_path / "tiny.yaml"), **options)
    assert "core" in capsys.readouterr().out
    record = json.loads(options["result"].read_text())
    assert record["max_abs_logit_difference"] <= 1e-5
    assert record["indexed_core_speedup_cpu"] == pytest.approx(core.speedup(), rel=1e-5)
    assert len(record["rungs"]) == 6
    assert record["rungs"][0]["latencies"]["parent"][0]["median_ms"] > 0
    same = [row for row in record["structure"] if row["parent"] == "dense" and row["keep"] == 1]
    assert [row["overlap"] for row in same] == [1, 1]
    assert record["single_position"]["within_one_point"] == (record["single_position"]["difference_points"] >= -1)
    assert len(record["fields"]) == len(record["heads"]) == 3
    assert record["gumbel"][0]["variant"] == "fixed"
    assert options["figure"].stat().st_size > 1000


def test_shipped_plans_can_be_read():
    for name in ("digits", "fashion"):
        plans = read_publication(name, "cuda").sweeps.values()
        assert {plan.device for plan in plans} == {"cuda"}
        assert {kind for plan in plans for kind in plan.criteria} == set(CRITERIA.names())
    with pytest.raises(ValueError, match=r"one of: digits, fashion"):
        read_publication("mnist")


def test_plan_refuses_what_cannot_run():
    with pytest.raises(ValueError, match="schedules must be"):
        Plan(checkpoints=("a",), schedules=("sometimes",))
    with pytest.raises(ValueError, match="finetune must"):
        Plan(checkpoints=("a",), schedules=("iterative",))
    with pytest.raises(ValueError, match="checkpoints"):
        Plan(checkpoints=())


@pytest.mark.filterwarnings("ignore:.*found in sys.modules.*:RuntimeWarning")  # runpy, of a module that is imported
def test_commands_show_their_help(monkeypatch, capsys):
    evidence = [f"evidence.{name}" for name in ("sweep", "publish", "agreement", "receptive_field")]
    for module in ("__main__", "measuring.operator_timing", *evidence):
        monkeypatch.setattr(sys, "argv", [module, "--help"])
        with pytest.raises(SystemExit) as end:
            runpy.run_module(f"analyses.pruning.{module}", run_name="__main__")
        assert end.value.code == 0
        assert "usage" in capsys.readouterr().out


def test_core_timing_finds_where_gathering_stops_winning(tmp_path):
    found = time_core(batch=2, side=6, dim=8, heads=4, window=5, keeps=(0, 1, 16), seconds=0.0)
    assert [row.keep for row in found.rows if row.form == "gather"] == [0, 1, 16]
    assert found.speedup(1, "fastest") <= found.speedup(1, "matmul")
    assert found.break_even_keep in (None, 0, 1, 16)
    assert all(path.stat().st_size for path in found.save(tmp_path))
    with pytest.raises(ValueError, match="multiple of heads"):
        time_core(dim=10, heads=4)
    with pytest.raises(ValueError, match="at most the window"):
        time_core(window=3, keeps=(10,))


def test_parents_of_one_folder_name_are_told_apart(parents, tmp_path):
    copies = []
    for number, parent in enumerate(parents):
        loaded = load_checkpoint(parent)
        path = tmp_path / str(number) / "model"
        copies.append(str(save_checkpoint(path, loaded.model, data=loaded.data, recipe={}, seed=number, metrics=[])))
    plan = Plan(tuple(copies), ("magnitude",), keeps=(1,), seconds=0.0, calibration=4, save_models=True)
    rows = run_sweep(plan, tmp_path / "out", times="none")
    assert [row.checkpoint for row in rows] == copies
    assert len(list((tmp_path / "out" / "rungs").glob("*.json"))) == 2
    assert len(list((tmp_path / "out" / "models").iterdir())) == 2


@pytest.mark.parametrize("name", ["ladder_digits", "ladder_fashion_curve"])
def test_published_rungs_are_read(name):
    record = json.loads((RESULTS / f"{name}.json").read_text())
    rows = [RungRow.read(row) for row in record["rungs"]]
    before = record["curves"]
    found = [vars(point) for point in curves(rows)]
    assert [list(point) for point in found] == [list(point) for point in before]
    for one, other in zip(found, before, strict=True):
        for key, value in other.items():
            assert one[key] == (pytest.approx(value, rel=1e-4, abs=1e-6) if isinstance(value, float) else value)
