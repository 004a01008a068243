"""The benchmark measures what it says, and memory grows linearly as promised."""

import json

import pytest
import torch

from analyses.bench.operators import contestants, run
from analyses.bench.operators.measure import Contestant, exponent, interleaved, peak_bytes, peak_resident, ratio
from analyses.bench.operators.record import FormTimes
from analyses.bench.operators.result import OpsBench
from analyses.provenance import RESULTS, commanded


def test_peak_bytes_counts_what_is_alive_at_once():
    x = torch.ones(1000, 1000, requires_grad=True)
    peak = peak_bytes(Contestant(lambda x: (x * 2) * 3, [x]))
    assert 8e6 <= peak <= 17e6, "between two and four 4 MB tensors are alive at once"
    resident = peak_resident(Contestant(lambda x: torch.cat([x, x]).exp().log(), [x]))
    assert resident is None or resident >= 8e6


def test_exponents_and_ratios():
    assert exponent([10, 100, 1000], [3.0, 300.0, 30000.0]) == pytest.approx(2.0)
    assert ratio({"a": [2.0, 4.0, 9.0], "b": [1.0, 2.0, 3.0]}, "a", "b") == 2.0
    x = torch.ones(3, requires_grad=True)
    times = interleaved({"one": Contestant(torch.exp, [x]), "two": Contestant(torch.sin, [x])}, 3)
    assert [len(values) for values in times.values()] == [3, 3]


@pytest.mark.parametrize("name", ["full_factorized", "local", "local_causal", "simple", "simple_causal", "conv"])
def test_peak_memory_is_linear_in_length(name):
    make, _ = contestants.CURVES[name]
    lengths = [400, 1024, 2304]
    peaks = [peak_bytes(make(length)) for length in lengths]
    assert exponent(lengths, peaks) <= 1.1
    assert peaks[-1] <= 60 * 4 * lengths[-1] * contestants.DIM, "no more than some tens of T x d tensors"


def test_every_contestant_runs_and_is_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "LENGTHS", (16, 64))
    monkeypatch.setattr(run, "form_table", lambda rounds, quick: [FormTimes("s", {"a": 1.0}, "a", "a", 1.0)])
    monkeypatch.setattr(run, "_ratios", lambda rounds: ({"simple_vs_sdpa": 0.1}, {}))
    with commanded("aft-lens", "bench", "ops", "--out", tmp_path):
        run.command(tmp_path)
    paths = [tmp_path / f"ops_cpu.{kind}" for kind in ("json", "png", "svg", "html")]
    record = json.loads(paths[0].read_text())
    assert set(record["memory_exponents"]) >= {"full_factorized", "local", "simple", "conv"}
    assert record["ratios"]["auto_vs_best_worst_case"] == 1.0
    assert record["machine"]["command"] == record["command"] == f"aft-lens bench ops --out {tmp_path}"
    assert all(path.stat().st_size > 1000 for path in paths)
    printed = capsys.readouterr().out
    assert all(words in printed for words in ("simple_vs_sdpa", "auto/best", "ms / MiB", str(paths[3])))


def test_the_published_record_is_read_and_written_as_it_is():
    published = json.loads((RESULTS / "ops_cpu.json").read_text())
    result = OpsBench.read(published)
    assert json.loads(json.dumps(result.record())) == published
    assert "0.18" in str(result)
    assert len(result.interactive().data) == 2 * len(result.curves)
