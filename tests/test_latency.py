"""Two models timed in turn: a paired difference, and no verdict where the machine or the times do not allow one."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from analyses import latency
from analyses.latency import LatencyPair, Timing, time_pair
from app.cli import main


def pair(first, second, **more):
    settings = {"batch": 4, "threads": 1, "others": 0.0, "interval": (0.9, 1.1)}
    times = (Timing("one", np.asarray(first, float)), Timing("two", np.asarray(second, float)))
    return LatencyPair(*times, **settings | more)


def test_the_slower_model_is_named_with_its_interval():
    found = pair([1.0, 1.1, 0.9, 1.0] * 5, [2.0, 2.1, 1.9, 2.0] * 5)
    assert found.difference == pytest.approx(1.0)
    assert found.verdict == "one is faster than two: two less one is +1.00 ms [+0.90, +1.10]"
    assert replace(found, interval=(-0.1, 0.2)).verdict.startswith("neither is faster")


def test_a_busy_machine_or_shaky_times_give_no_verdict():
    assert "other work used 0.9 processors" in pair([1.0] * 9, [2.0] * 9, others=0.9).verdict
    shaky = pair([1.0, 3.0] * 8, [2.0] * 16)
    assert shaky.verdict == "no verdict: the times of one scatter too much; measure again"


def test_rounds_are_paired_and_in_drawn_order(monkeypatch):
    ran = []

    class Model(torch.nn.Module):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def forward(self, images):
            ran.append(self.name)
            return images

    images = torch.zeros(2, 1, 4, 4)
    found = time_pair([("a", Model("a"), images), ("b", Model("b"), images)], rounds=12)
    turns = ran[2 * latency.WARM :]
    assert {tuple(sorted(turns[i : i + 2])) for i in range(0, 24, 2)} == {("a", "b")}
    assert 0 < turns[::2].count("a") < 12
    assert found.first.times.shape == found.second.times.shape == (12,)
    assert found.interval[0] <= found.difference <= found.interval[1]
    with pytest.raises(ValueError, match="two models and 8 rounds"):
        time_pair([("a", Model("a"), images)])


def test_it_is_a_command(tmp_path, capsys):
    assert (
        main(["latency", "digits-conv", "digits-single", "--batch", "2", "--rounds", "8", "--out", str(tmp_path)]) == 0
    )
    assert "taking turns" in capsys.readouterr().out
    assert (tmp_path / "latency.html").is_file()
