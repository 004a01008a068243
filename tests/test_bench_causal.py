"""`aft-lens bench causal`: what it says without a GPU, its ratios, tables and figure."""

import json
from functools import partial

import pytest
import torch
from matplotlib.figure import Figure

from aft_lens.models import DecoderConfig
from analyses.bench.causal import run
from analyses.bench.causal.record import COMPARISONS, CausalRecord, GenerationRow, StepRow
from analyses.bench.causal.result import CausalBench
from analyses.bench.generation import generation_ratio
from analyses.bench.gpu.record import OperatorRow, Time
from analyses.result import dump
from app.cli import main

KEYS = (
    "local_forward_1024", "local_train_1024", "local_forward_4096", "local_train_4096", "simple_forward_floor",
    "simple_train_1024", "decoder_train_4096", "generation_4096",
)  # fmt: skip


def time(microseconds):
    return Time(microseconds, microseconds, microseconds)


def bench(generation=()):
    times = {
        "copy": (30.0, None),
        "sdpa_causal": (80.0, 400.0),
        "simple_causal": (45.0, 100.0),
        "local_causal": (60.0, 300.0),
    }
    rows = [
        OperatorRow(name, 32, (1, length), 0, 32, time(forward), None if train is None else time(train), 1e-3)
        for length in (1024, 4096)
        for name, (forward, train) in times.items()
    ]
    steps = [StepRow("aft_local", 8, 4096, 30.0, 5.0), StepRow("attention", 8, 4096, 40.0, 6.0)]
    made = ("aft-lens bench causal", "a GPU", {"torch": "2.11.0"}, "A method.", {"1024": "cudnn_attention"})
    return CausalBench(CausalRecord(*made, 0, rows, steps, generation))


def test_it_says_that_it_needs_a_gpu(tmp_path):
    if torch.cuda.is_available():
        run.command(tmp_path, quick=True)
        assert (tmp_path / "causal.json").is_file()
    else:
        with pytest.raises(ValueError, match="CUDA"):
            run.command(tmp_path)


def test_a_run_records_generation_with_the_rest(tmp_path, monkeypatch, capsys):
    """All that it writes, with the device's own measurements put in place; generation is timed for real on the CPU."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(run, "environment", lambda device: {"hardware": device, "versions": {"torch": "2"}})
    monkeypatch.setattr(run, "backend", lambda case: "cudnn_attention")
    rows = bench().measured.operators
    monkeypatch.setattr(run, "operator_rows", lambda case: ([row for row in rows if row.grid == case.grid], []))
    monkeypatch.setattr(run, "step_row", lambda config, batch: StepRow(config.mixer, batch, config.length, 30.0, 5.0))
    shape = DecoderConfig(embed_dim=16, depth=1, num_heads=2, window_size=4, dropout=0.0)
    small = partial(generation_ratio, device="cpu", dtype=torch.float32, shape=shape)
    monkeypatch.setattr(run, "generation_ratio", small)
    run.command(tmp_path)
    record = json.loads((tmp_path / "causal.json").read_text())
    speeds = {row["mixer"]: row["tokens_per_second"] for row in record["generation"]}
    assert record["ratios"]["generation_4096"] == pytest.approx(speeds["aft_local"] / speeds["attention"], rel=1e-4)
    assert tuple(record["ratios"]) == KEYS
    assert "Generation:" in record["method"]
    assert "tokens/s at context 4,096" in capsys.readouterr().out


def test_ratios_follow_from_the_rows():
    assert tuple(one.key for one in COMPARISONS) == KEYS
    found = bench().record()["ratios"]
    assert found == {
        "local_forward_1024": 0.75, "local_train_1024": 0.75, "local_forward_4096": 0.75, "local_train_4096": 0.75,
        "simple_forward_floor": 1.5, "simple_train_1024": 0.25, "decoder_train_4096": 0.75,
    }  # fmt: skip
    rows = [GenerationRow("aft_local", 64, 4096, 6000.0), GenerationRow("attention", 64, 4096, 2000.0)]
    assert bench(rows).record()["ratios"]["generation_4096"] == 3.0


def test_tables_say_what_is_met_and_what_is_not_measured(tmp_path, capsys):
    result = bench()
    (tmp_path / "causal.json").write_text(dump(result.record()))
    assert main(["bench", "causal_table", "--out", str(tmp_path)]) == 0
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()]
    assert lines[2] == [
        "AFT-local over attention, T = 1,024, forward", "60.0 µs", "80.0 µs", "0.750", "0.9", "≤ 1.5", "yes",
    ]  # fmt: skip
    assert lines[5][3:] == ["0.750", "0.35", "≤ 0.5", "no"]
    assert lines[8][1:3] == ["30.0 ms", "40.0 ms"]
    assert lines[9][1:] == ["–", "–", "–", "5", "≥ 2", "–"]
    assert (tmp_path / "causal.png").is_file()
    again = CausalRecord.read(json.loads((tmp_path / "causal.json").read_text()))
    assert dump(CausalBench(again).record()) == (tmp_path / "causal.json").read_text()


def test_measured_ratios_are_drawn():
    figure = Figure()
    bench().plot(figure)
    assert [bar.get_width() for bar in figure.axes[0].patches][:2] == [0.75, 0.75]
    assert list(bench().interactive().data[0].x)[4] == 1.5
