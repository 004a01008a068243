"""aft-lens bench images: the files it makes, its small run on the CPU, and what its record says."""

import io
import json
from dataclasses import replace

import pytest
from PIL import Image

from analyses.bench import command
from analyses.bench.images import run
from analyses.bench.images.files import COLUMNS, ROWS, photograph
from analyses.bench.images.record import ImagesRecord, Run, Stage
from analyses.bench.images.result import ImagesBench
from analyses.bench.images.runs import KINDS
from analyses.published.sections import SECTIONS

RECORD = ImagesRecord("bench images", "a GPU", {"torch": "2"}, "Method.", 16, 100, 70.0, 4)


def test_files_have_the_size_and_weight_of_photographs():
    data = photograph(3)
    assert Image.open(io.BytesIO(data)).size == (COLUMNS, ROWS)
    assert 60_000 < len(data) < 80_000
    assert data == photograph(3) != photograph(4)


def tiny(folder, count):
    """A folder as `make_files` gives it, of small images."""
    for split, images in (("train", count), ("val", 20)):
        for number in range(images):
            path = folder / split / f"{number % 2}" / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (12, 9), (number % 256, 0, 0)).save(path)
    return folder


def test_a_small_run_measures_what_a_machine_without_a_gpu_can(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "make_files", lambda folder, count: tiny(tmp_path / "files", 64))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    command("images", out=tmp_path, quick=True)
    found = ImagesRecord.read(json.loads((tmp_path / "images.json").read_text()))
    assert [stage.name.partition(" (")[0] for stage in found.stages] == [
        "read, decode, augment", "whole loader", "whole loader",
    ]  # fmt: skip
    assert all(stage.images_per_second > 0 for stage in found.stages)
    assert len(found.memory_mib) == 2
    assert found.ratios == {}
    assert "none was found" in capsys.readouterr().out
    command("images_table", out=tmp_path)
    assert "whole loader (deit)" in capsys.readouterr().out


def test_ratios_follow_from_the_runs():
    rates = {"train from memory": 100.0, "train from files": 96.0, "train from files, DeiT": 90.0}
    runs = [Run(name, rate) for name, rate in {**rates, "forward pass": 200.0, "evaluate from files": 180.0}.items()]
    measured = replace(RECORD, runs=runs, stages=[Stage("decode", 100.0, "nvJPEG"), Stage("read", 50.0, "15")])
    assert set(KINDS) == set(rates)
    assert measured.ratios == pytest.approx({"train_files": 0.96, "train_deit": 0.9, "evaluate_files": 0.9})
    assert measured.bottleneck == "read"
    assert ImagesRecord.read(json.loads(json.dumps(measured.record()))).ratios == measured.ratios
    assert "training with DeiT's augmentation 0.90" in SECTIONS["images"].content(measured.record())
    shown = ImagesBench(measured)
    assert "train_files 0.96" in shown.markdown()
    assert len(shown.figure().axes[0].patches) == len(shown.interactive().data[0].x) == 7
