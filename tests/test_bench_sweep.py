"""What sharing a sweep costs, and what a million cells would: as it was measured, and not from a busy machine."""

import json
from pathlib import Path

import pytest

from analyses.bench.sweep.result import DAY, SweepBench, Way, million
from analyses.provenance import RESULTS
from analyses.published.vits import sweep


def bench(load=0.1):
    ways = Way("one process", 1, 200.0, 190.0, load, 1.0), Way("4 Ray workers", 4, 110.0, 209.0, load, 1.0)
    return SweepBench(ways, 2, 3, [0.5, 1.0, 1.5], 32, {"method": "A method."})


def test_ratios_are_over_the_ideal_and_a_busy_machine_is_said():
    found = bench()
    assert (found.ratio, found.work) == pytest.approx((1.1, 1.1))
    assert "1.100 (allowed 1.15)" in str(found)
    assert "says nothing" not in str(found)
    assert "says nothing" in str(bench(5.0))
    assert "rows alike to the last bit: 3 of 3" in str(found)


def test_a_million_cells_are_computed_from_the_measured_cell(tmp_path):
    record = json.loads(bench().write_record(tmp_path / "sweep.json").read_text())
    cost = million(record)
    assert cost.rows[0] == ["1", f"{1e6 / 86400:,.1f}"]
    assert cost.rows[2] == ["64", f"{1e6 * 1.1 / 64 / 86400:,.1f}"]
    shown = sweep(record)
    assert "3 of 3 rows" in shown
    assert "1.100 times" in shown
    assert "10⁶ cells of 32 images, 1.00 s" in shown


def test_the_page_on_scale_computes_with_what_was_measured():
    record = json.loads((RESULTS / "compact_dinov2.json").read_text())
    seconds = record["forms"][0]["times"][0]["latency"]["cpu_ms"] / 1e3
    days = 1e6 * 200 * seconds / DAY
    page = " ".join((Path(__file__).parents[1] / "docs" / "scale.md").read_text(encoding="utf-8").split())
    for words in (
        f"takes {seconds:.3f} s of one thread", f"cell of 200 images is {200 * seconds:.0f} s",
        f"{days:.0f} days of one thread: {days / 64:.1f} days of 64 threads",
    ):  # fmt: skip
        assert words in page
