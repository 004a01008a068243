"""The tables and the figure made of gpu_h100.json, from made-up records."""

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest

from analyses.bench import command
from analyses.bench.gpu.comparisons import COMPARISONS, ratios
from analyses.bench.gpu.figure import bars, curve, dots
from analyses.bench.gpu.page import page
from analyses.bench.gpu.record import GPURecord, ModelRow, OperatorRow, Time
from analyses.bench.gpu.result import GPUBench
from analyses.bench.gpu.roofline import copy_rate, moved, operations, roofline
from analyses.bench.gpu.tables import markdown, model_table, operator_table, ratio_table, roofline_table
from analyses.provenance import RESULTS
from app.cli import main


def time(median):
    return None if median is None else Time(median, 0.99 * median, 1.01 * median)


def row(operator, side, forward, train=None, heads=0, window=0, batch=256, **more):
    return OperatorRow(operator, batch, (side, side), heads, window, time(forward), time(train), **more)


@pytest.fixture
def measured():
    rows = [
        row("copy", 14, 50.0),
        row("sdpa", 14, 80.0, 400.0, peak_mib=260.4, error=None),
        row("sdpa", 56, 500.0, batch=16),
        row("aft_conv", 14, 100.0, 300.0, heads=32, window=11, peak_mib=211.8, error=0.00269),
        row("aft_conv", 14, 20.0, heads=32, window=3),
        row("aft_conv", 28, 50.0, heads=32, window=11, batch=64),
        row("aft_conv", 56, 125.0, heads=32, window=11, batch=16),
        row("aft_conv", 112, 60.0, heads=32, window=11, batch=4),
        row("floor", 14, 50.0, 140.0, heads=384, window=11),
        row("indexed", 14, 60.0, 175.0, heads=384, window=11),
    ]
    models = {
        "deit_small": ModelRow(23000.0, 5000.0, 8.0),
        "aft_conv_small_11_32": ModelRow(25300.0, 6000.0, 6.0),
        "deit_small_56": ModelRow(1000.0, 500.0, 8.0),
        "aft_conv_small_11_32_56": ModelRow(2000.0, 500.0, 6.0),
    }
    versions = {"torch": "2.11.0"}
    return GPURecord("aft-lens bench gpu", "NVIDIA H100 80GB HBM3", versions, "A method.", 0, tuple(rows), models)


def test_ratios_are_ours_over_theirs_in_the_tables_order(measured):
    found = ratios(measured)
    assert found == pytest.approx(
        {
            "conv_h32_forward": 1.25, "conv_h32_train": 0.75, "indexed_forward": 1.2, "indexed_train": 1.25,
            "conv_56_forward": 0.25, "per_token_growth": 1.2, "model_inference": 1.1, "model_train": 1.2,
            "model_56_inference": 2.0, "model_56_train": 1.0, "model_train_memory": 0.75,
        }
    )  # fmt: skip
    assert list(found) == [comparison.key for comparison in COMPARISONS if comparison.key in found]
    assert len({comparison.key for comparison in COMPARISONS}) == 20


def test_the_published_record_is_read_and_written_as_it_is_and_its_ratios_are_those_of_its_rows():
    published = json.loads((RESULTS / "gpu_h100.json").read_text())
    result = GPUBench(GPURecord.read(published))
    again = json.loads(json.dumps(result.record()))
    assert list(again) == list(published)
    assert again.pop("ratios") == pytest.approx(published.pop("ratios"))
    assert again == published
    assert "Made by: `aft-lens bench gpu`" in str(result)


def test_times_should_be_small_and_images_many(measured):
    rows = ratio_table(measured).rows
    cells = {comparison.key: row[1:] for comparison, row in zip(COMPARISONS, rows, strict=True)}
    assert cells["conv_h32_forward"] == ["100.0 µs", "80.0 µs", "1.250", "0.6", "≤ 0.8", "no"]
    assert cells["conv_h32_train"] == ["300.0 µs", "400.0 µs", "0.750", "0.5", "≤ 0.65", "no"]
    assert cells["per_token_growth"][2:] == ["1.200", "1", "≤ 1.2", "yes"]
    assert cells["model_inference"] == ["25,300", "23,000", "1.100", "1.02", "≥ 0.97", "yes"]
    assert cells["model_56_train"] == ["500", "500", "1.000", "2.4", "≥ 2", "no"]
    assert cells["model_train_memory"] == ["6.00 GiB", "8.00 GiB", "0.750", "0.95", "≤ 1", "yes"]
    assert cells["conv_h16_forward"] == ["–", "80.0 µs", "–", "0.6", "≤ 0.8", "–"]


def test_bytes_and_operations_of_a_small_grid():
    small = row("aft_conv", 14, 100.0, heads=32, window=11)
    assert moved(small, trained=False) == 2 * 256 * 196 * (384 + 32 + 384 + 384)
    assert moved(small, trained=True) == 2 * 256 * 196 * (8 * 384 + 3 * 32)
    assert operations(small, trained=False) == 2 * 256 * (384 + 32) * 196 * 196
    assert operations(small, trained=True) == 3 * operations(small, trained=False)
    assert operations(row("indexed", 14, 60.0, heads=32, window=11), trained=True) == 0


@pytest.mark.parametrize(
    ("side", "window", "pairs"),
    [
        (56, 11, 7 * 7 * 64 * 18 * 24),  # halos of 8 + 10 rows and 3 strips of 8 columns
        (56, 3, 7 * 7 * 64 * 10 * 24),
        (56, 25, 7 * 7 * 64 * 32 * 40),  # 12 columns beyond a side are two strips
        (28, 11, 4 * 4 * 64 * 18 * 24),  # the patches at the edge count whole
    ],
)
def test_large_grids_multiply_patches_by_their_halos(side, window, pairs):
    large = row("aft_conv", side, 200.0, heads=32, window=window, batch=16)
    assert operations(large, trained=False) == 2 * 16 * (384 + 32) * pairs


def test_rates_are_counts_over_the_measured_time(measured):
    conv = measured.operators[3]
    found = roofline(measured, conv, "forward_us")
    assert found.rate == pytest.approx(2 * 256 * 196 * 1184 / 100e-6)
    assert found.operation_rate == pytest.approx(2 * 256 * 416 * 196**2 / 100e-6)
    assert found.copy_rate == pytest.approx(2 * 256 * 196 * 4 * 384 / 50e-6)
    assert found.by_bytes == pytest.approx(50 * 1184 / 1536)
    assert found.by_operations == pytest.approx(2 * 256 * 416 * 196**2 / 989e6)
    line = next(row for row in roofline_table(measured).rows if row[0] == "AFT-conv 11, 14 × 14, 32 heads")
    assert line[1:] == ["forward", "118.8", "8.2", "38.5 (bytes)", "100.0", "1,188", "39 %", "81.8", "8 %"]


def test_without_a_copy_or_a_known_gpu_the_bounds_are_left_out(measured):
    unknown = replace(measured, hardware="another GPU", operators=measured.operators[3:4])
    assert copy_rate(unknown.operators, unknown.operators[0]) is None
    table = roofline_table(unknown)
    assert list(table.rows[0][1:]) == ["forward", "118.8", "8.2", "–", "100.0", "1,188", "–", "81.8", "–"]
    assert "Published" not in table.note
    assert "copies" not in table.note


def test_operators_and_models_have_a_line_each(measured):
    rows = operator_table(measured.operators).rows
    assert ["AFT-conv", "14 × 14", "256", "32", "11", "100.0", "300.0", "212", "2.7e-03"] in rows
    assert ["copy", "14 × 14", "256", "–", "–", "50.0", "–", "–", "–"] in rows
    assert len(rows) == len(measured.operators)
    assert ["`deit_small`", "23,000", "5,000", "8.00"] in model_table(measured.models).rows
    assert markdown(measured).endswith(
        "A method. The quartiles of a time lie at most 2.0 % of it apart. On NVIDIA H100 80GB HBM3, PyTorch 2.11.0. "
        "Made by: `aft-lens bench gpu`"
    )


def test_the_figure_shows_what_was_measured(measured):
    rows = measured.operators
    assert [bar[2] for bar in bars(rows)] == [140.0, 175.0, 300.0, 400.0]
    sides, times = curve(rows, "aft_conv", 32, 11, "forward_us")
    assert sides == [14, 28, 56, 112]
    assert times == pytest.approx([time * 1e3 / 50176 for time in (100, 50, 125, 60)])
    found = {comparison.key: ratio for comparison, ratio in dots(measured)}
    assert found == ratios(measured)
    bar, *lines, points = page(measured).data
    assert list(bar.x) == [140.0, 175.0, 300.0, 400.0]
    assert [line.name for line in lines] == [
        "AFT-conv, forward", "AFT-conv, forward + backward", "SDPA, forward", "SDPA, forward + backward",
        "copy, forward",
    ]  # fmt: skip
    assert list(points.x) == list(found.values())


@pytest.mark.parametrize("kept", ["everything", "models", "nothing"])
def test_the_command_prints_and_draws_a_record(measured, kept, tmp_path, capsys):
    if kept != "everything":
        measured = replace(measured, operators=())
    if kept == "nothing":
        measured = replace(measured, models={})
    (tmp_path / "gpu_h100.json").write_text(json.dumps(GPUBench(measured).record()))
    assert main(["bench", "gpu_table", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == markdown(measured) + "\n"
    assert (tmp_path / "gpu_h100.png").read_bytes().startswith(b"\x89PNG")
    assert ElementTree.parse(tmp_path / "gpu_h100.svg").getroot().tag.endswith("svg")
    assert "plotly" in (tmp_path / "gpu_h100.html").read_text()


def test_the_tables_ask_for_what_they_need(tmp_path):
    for what, path in (("gpu_table", "gpu_h100.json"), ("multi_gpu_table", "multi_gpu.json")):
        with pytest.raises(FileNotFoundError, match=path):
            command(what, out=tmp_path)
        with pytest.raises(ValueError, match="no quick run"):
            command(what, out=tmp_path, quick=True)
