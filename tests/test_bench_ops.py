"""The benchmark measures what it says, and memory grows linearly as promised."""

import json

import pytest
import torch

from analyses.bench import contests, ops
from analyses.bench.measure import Contest, exponent, interleaved, peak_bytes, peak_resident, ratio


def test_peak_bytes_counts_what_is_alive_at_once():
    x = torch.ones(1000, 1000, requires_grad=True)
    peak = peak_bytes(Contest(lambda x: (x * 2) * 3, [x]))
    assert 8e6 <= peak <= 17e6, "between two and four 4 MB tensors are alive at once"
    resident = peak_resident(Contest(lambda x: torch.cat([x, x]).exp().log(), [x]))
    assert resident is None or resident >= 8e6


def test_exponents_and_ratios():
    assert exponent([10, 100, 1000], [3.0, 300.0, 30000.0]) == pytest.approx(2.0)
    assert ratio({"a": [2.0, 4.0, 9.0], "b": [1.0, 2.0, 3.0]}, "a", "b") == 2.0
    x = torch.ones(3, requires_grad=True)
    times = interleaved({"one": Contest(torch.exp, [x]), "two": Contest(torch.sin, [x])}, 3)
    assert [len(values) for values in times.values()] == [3, 3]


@pytest.mark.parametrize("name", ["full_factorized", "local", "local_causal", "simple", "simple_causal", "conv"])
def test_peak_memory_is_linear_in_length(name):
    make, _ = contests.CURVES[name]
    lengths = [400, 1024, 2304]
    peaks = [peak_bytes(make(length)) for length in lengths]
    assert exponent(lengths, peaks) <= 1.1
    assert peaks[-1] <= 60 * 4 * lengths[-1] * contests.DIM, "no more than some tens of T x d tensors"


def test_every_contestant_runs_and_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(ops, "LENGTHS", (16, 64))
    monkeypatch.setattr(
        ops,
        "form_table",
        lambda rounds, quick: [{"shape": "s", "ms": {}, "auto": "a", "best": "a", "auto_over_best": 1.0}],
    )
    monkeypatch.setattr(ops, "_ratios", lambda rounds: ({"simple_vs_sdpa": 0.1}, {}))
    result = ops.measure()
    assert set(result.memory_exponents) >= {"full_factorized", "local", "simple", "conv"}
    paths = result.save(tmp_path)
    assert json.loads(paths[0].read_text())["ratios"]["auto_vs_best_worst_case"] == 1.0
    assert all(path.stat().st_size > 1000 for path in paths)
