"""aft-lens bench multi_gpu --data files: what it runs, its rows, and what it refuses without GPUs."""

import json
from dataclasses import asdict
from types import SimpleNamespace

import pytest

from aft_lens.training import read_recipe
from analyses.bench import command
from analyses.bench.multi_gpu import files
from analyses.published.sections import SECTIONS


@pytest.mark.parametrize("data", ["memory", "files"])
def test_runs_are_recipes(tmp_path, data):
    words = [word.removeprefix("--") for word in files.options(data, 2, tmp_path)]
    recipe = read_recipe(words[0].partition("=")[2], *words[1:], "trainer.save_steps=10")
    assert recipe.model.num_heads == 384
    assert recipe.data.resident == (data == "memory")
    assert (recipe.data.mixup, recipe.data.batch_size, recipe.model.drop_path) == (0, files.BATCH, 0)


def test_rows_have_their_efficiency_over_single_gpus(tmp_path, monkeypatch):
    rates = {("memory", 1): 100.0, ("memory", 2): 190.0, ("files", 1): 90.0, ("files", 2): 162.0}
    trained = []

    class Trainings:
        folder = tmp_path

        def __init__(self, folder):
            pass

        def run(self, run):
            trained.append((run.name, run.count))
            return [{"epochs": files.EPOCHS, "host_cores": 3.0}]

        def broken_off(self, run, epochs, after):
            assert after.options[-1] == f"--data.batch_size={2 * files.BATCH}", "the steps of an epoch stay"
            assert (run.count, after.count) == (2, 1)
            return {"before": epochs, "epochs": files.EPOCHS}

    def metrics(path):
        data, _, count = path.name.partition("-")
        rate = rates[data, int(count)]
        return [{"images_per_second": value, "peak_memory_mib": 5.0} for value in (1.0, rate, rate)]

    monkeypatch.setattr(files, "Trainings", Trainings)
    monkeypatch.setattr(files, "read_metrics", metrics)
    monkeypatch.setattr(files, "make_files", lambda folder, count: folder)
    monkeypatch.setattr(files, "made_by", lambda device: {"command": "bench", "hardware": "two", "versions": {}})
    monkeypatch.setattr(files, "torch", SimpleNamespace(cuda=SimpleNamespace(device_count=lambda: 2)))
    command("multi_gpu", out=tmp_path, data="files")
    found = json.loads((tmp_path / "multi_gpu_files.json").read_text())
    assert [(row["data"], row["gpus"], row["efficiency"]) for row in found["rows"]] == [
        ("memory", 1, 1.0), ("memory", 2, 0.95), ("files", 1, 1.0), ("files", 2, 0.9),
    ]  # fmt: skip
    assert {row["host_cores"] for row in found["rows"]} == {3.0}
    assert trained == [("memory-1", 1), ("memory-2", 2), ("files-1", 1), ("files-2", 2)]
    assert found["resumed"] == {"gpus_before": 2, "gpus_after": 1, "epochs_before": 1, "epochs": files.EPOCHS}


def test_what_cannot_be_measured_is_said(monkeypatch):
    monkeypatch.setattr(files, "torch", SimpleNamespace(cuda=SimpleNamespace(device_count=lambda: 1)))
    with pytest.raises(ValueError, match="needs two CUDA devices or more, found 1"):
        command("multi_gpu", data="files")
    with pytest.raises(ValueError, match="bench ops has no --data"):
        command("ops", data="files")


def test_the_page_shows_every_row_and_what_was_resumed():
    rows = [asdict(files.FilesRow(count, "files", 100.0 * count, 1.0, 5.0, 3.5)) for count in (1, 2)]
    resumed = {"gpus_before": 2, "gpus_after": 1, "epochs_before": 1, "epochs": 4}
    shown = SECTIONS["multi_gpu_files"].content({"cores": 16, "rows": rows, "resumed": resumed})
    assert shown.count("| files") == 2
    assert "ended after 1 whole epochs, went on with 1 to its 4 epochs" in shown
