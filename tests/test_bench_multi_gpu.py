"""The table and the figure made of multi_gpu.json, and the differences between its rows."""

import json

from matplotlib.figure import Figure

from analyses.bench.multi_gpu.record import GPUCount, Resumed
from analyses.bench.multi_gpu.result import MultiGPUBench
from analyses.bench.multi_gpu.run import with_differences
from analyses.provenance import RESULTS
from analyses.result import dump
from app.cli import main


def bench(resumed=None):
    rows = [
        GPUCount(1, 4000.0, 9000.4, 1.0, (90.0, 91.0, 92.0)),
        GPUCount(2, 7800.0, 9100.0, 0.975),
        GPUCount(4, 15000.0, 9100.0, 0.9375, (90.0, 91.0, 93.0), (-2.5, 3.125)),
    ]
    made = ("aft-lens bench multi_gpu", "a GPU", {"torch": "2.11.0"})
    return MultiGPUBench(*made, [0, 1, 2], "A method.", rows, resumed)


def test_gpus_have_a_line_each(tmp_path, capsys):
    assert "resumed" not in bench().markdown()
    result = bench(Resumed(2, 1, 2, 5, 91.234))
    (tmp_path / "multi_gpu.json").write_text(dump(result.record()))
    assert main(["bench", "multi_gpu_table", "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:5]] == [
        ["1", "4,000", "1.000", "9,000", "91.00 ± 1.00", "–"],
        ["2", "7,800", "0.975", "9,100", "–", "–"],
        ["4", "15,000", "0.938", "9,100", "91.33 ± 1.53", "[-2.50, +3.12]"],
    ]
    assert "Stopped on 2 GPUs after 2 epochs and resumed on 1: 5 epochs, test accuracy 91.23 %." in lines
    assert lines[-1] == "A method. On a GPU, PyTorch 2.11.0, seeds 0, 1, 2. Made by: `aft-lens bench multi_gpu`"


def test_speed_and_accuracy_are_drawn_as_far_as_they_are_measured():
    figure = Figure()
    bench().plot(figure)
    speed, accuracy = figure.axes
    assert list(speed.lines[0].get_ydata()) == [4000.0, 7800.0, 15000.0]
    assert list(speed.lines[1].get_ydata()) == [4000.0, 8000.0, 16000.0]
    assert list(accuracy.lines[0].get_xdata()) == [1, 4]
    assert list(bench().interactive().data[1].y) == [4000.0, 8000.0, 16000.0]


def test_the_published_record_is_read_and_written_as_it_is_and_its_differences_follow_from_its_rows():
    published = json.loads((RESULTS / "multi_gpu.json").read_text())
    result = MultiGPUBench.read(published)
    assert json.loads(json.dumps(result.record())) == published
    again = with_differences(list(result.rows))
    assert [row.difference for row in again] == [row.difference for row in result.rows]
