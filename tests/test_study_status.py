"""What a study still lacks, and what of it fits into a lease."""

from dataclasses import replace

import pytest
from study_cases import run, smoke

from analyses.study.plan import Study, tasks
from analyses.study.status import HELD_OUT, Pace, Row, Status, images, measured_paces
from analyses.study.status import command as print_status


def test_a_run_trains_on_its_epochs_images():
    plan = tasks(Study(plan="tuning", family="cifar10", only=("vit",)))
    assert {images(task) for task in plan} == {4 * 50_000 * (1 - HELD_OUT)}
    assert len(plan) == 9
    assert (
        images(tasks(Study(family="digits", tuned=False, only=("vit",), limit_batches=2, epochs=3))[0]) == 2 * 500 * 3
    )


def test_runs_that_shared_a_gpu_share_its_seconds():
    alone = replace(run("vit", 0, 50.0), images_per_second=100.0, finished="2026-01-01T00:01:00+00:00")
    pace = measured_paces([(alone, 5000)])["fashion", "vit"]
    assert (pace.images_per_second, pace.fixed) == (100, 10)  # of 60 seconds, 50 were training
    beside = replace(alone, configuration="conv")
    shared = measured_paces([(alone, 5000), (beside, 5000)])["fashion", "conv"]
    assert (shared.images_per_second, shared.fixed) == (200, 5)
    assert shared.seconds(5000) == 30  # two runs in a minute
    assert measured_paces([(alone, 5000), (beside, 5000)], gpus=2)["fashion", "conv"] == pace


def test_what_fits_is_counted_from_row_to_row():
    rows = [Row("tuning", "fashion", 9, 0, 1e6, 60.0, "runs"), Row("claims", "fashion", 9, 3, 1e6, 80.0, "runs")]
    table = [row[6:8] for row in Status(rows, 50.0, 2).table().rows]
    assert table == [["30", "100 %"], ["70", "50 %"]]
    assert Pace(10.0, 1.0).seconds(20) == 3


def test_the_command_names_what_must_come_first(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("analyses.study.status.GRIDS", ("digits",))
    print_status(smoke(tmp_path, only=(), tuned=True), budget=100, gpus=2)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:5]] == ["tuning", "claims", "sparsity", "long"]
    assert [line.rstrip().endswith("tuning") for line in lines[1:5]] == [False, True, True, True]
    with pytest.raises(ValueError, match="gpus and run_gpus 1 or more"):
        print_status(gpus=0)
