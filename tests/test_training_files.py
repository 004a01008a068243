"""Training from image files: the same in several processes, within an epoch resumed, what is said of its data."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import files_worker
import pytest
import torch
from lightning_advice import LIGHTNING_ADVICE
from photos import photo
from test_resuming import assert_same_weights
from test_training import weights

import aft_lens.training.waiting as waiting
from aft_lens.checkpoint import read_config
from aft_lens.data import FileBatches, load_data
from aft_lens.errors import InputError
from aft_lens.models import create_model, model_config
from aft_lens.training import DataRecipe, OptimRecipe, Recipe, TrainerRecipe, evaluate, train
from aft_lens.training.gumbel_health import GumbelHealth
from aft_lens.training.on_device import settled
from aft_lens.training.resuming import part_files, resume_files
from aft_lens.training.run import state_folder

pytestmark = [pytest.mark.filterwarnings(line) for line in LIGHTNING_ADVICE]


@pytest.fixture
def folder(tmp_path):
    """Photos of two classes below photos/, 84 in all."""
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(42):
            photo(14 + i % 5, 16, 100 * label + i).save(tmp_path / "photos" / name / f"{i:02d}.jpg")
    return tmp_path


def seen_in_training(monkeypatch, recipe, path, **options):
    """The steps of a training in this process."""
    seen = files_worker.Seen()
    with monkeypatch.context() as patch:
        patch.setattr(GumbelHealth, "on_train_batch_start", lambda self, *rest: seen(self, *rest))
        train(recipe, path, progress=False, **options)
    return seen.steps


def test_two_processes_share_files_and_one_goes_on_within_the_epoch(folder, monkeypatch):
    base = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    base["MASTER_PORT"] = str(20_000 + (os.getpid() + 77) % 20_000)
    command = [sys.executable, files_worker.__file__, str(folder)]
    done = subprocess.run(command, env=base, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    shares = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(files_worker.PROCESSES)]
    alone = files_worker.recipe(folder, 1)
    whole = seen_in_training(monkeypatch, alone, folder / "alone")
    for step, one, other in zip(whole, *shares, strict=False):
        assert step[:2] == one[:2] == other[:2]
        assert step[2] == torch.tensor([one[2], other[2]]).T.flatten().tolist()
        assert step[3] == pytest.approx(torch.tensor([one[3], other[3]]).T.flatten().tolist(), rel=1e-6)
    rest = seen_in_training(monkeypatch, alone, folder / "run", resume=True)
    assert rest == whole[len(whole) - len(rest) :]
    assert rest[0][:2] == [1, 4], "behind the last state that was kept"
    expected, found = weights(folder / "alone"), weights(folder / "run")
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=2e-5, rtol=1e-4)


class Killed(Exception):
    """A run was broken off."""


@pytest.mark.parametrize(
    "data",
    [
        DataRecipe(augment="shift", mixup=0.8, cutmix=1.0),
        DataRecipe(augment="shift", resident=True),
        "files",
    ],
    ids=["mixed", "resident", "files"],
)
def test_a_run_goes_on_within_an_epoch(folder, monkeypatch, data):
    fields = {"depth": 1, "embed_dim": 16, "num_heads": 4, "drop_path": 0.1}
    if data == "files":
        data = DataRecipe(name=f"folder:{folder / 'photos'}", augment="deit", mixup=0.8, batch_size=8)
        fields |= {"in_chans": 3, "num_classes": 2, "img_size": 8}
    trainer = TrainerRecipe(epochs=3, accelerator="cpu", limit_batches=7, save_steps=2)
    recipe = Recipe(model=model_config("aft_conv_digits", **fields), data=data, trainer=trainer, seed=3)
    recipe = replace(recipe, optim=OptimRecipe(lr=0.005, warmup_epochs=1, ema=0.8))
    whole = train(recipe, folder / "whole", progress=False)

    def killed(self, trainer, module, batch, number):
        if (trainer.current_epoch, number) == (epoch, 5):
            raise Killed

    for epoch in (1, 0) if data.resident else (1,):  # before the first epoch is whole there is no checkpoint
        path = folder / f"broken-{epoch}"
        with monkeypatch.context() as patch:
            patch.setattr(GumbelHealth, "on_train_batch_start", killed)
            with pytest.raises(Killed):
                train(recipe, path, progress=False)
        assert [file.name for file in part_files(state_folder(path))] == [f"epoch={epoch}-batch=4.ckpt"]
        assert_same_weights(whole, train(recipe, path, resume=True, progress=False))
        assert part_files(state_folder(path)) == []
        assert len(resume_files(state_folder(path))) == 2


def small(folder, **data):
    """A recipe that trains on the photos for an epoch."""
    model = model_config("aft_conv_digits", depth=1, embed_dim=16, num_heads=4, in_chans=3, num_classes=2, img_size=8)
    data = DataRecipe(name=f"folder:{folder / 'photos'}", **{"augment": "resized-crop", "batch_size": 8, **data})
    return Recipe(model=model, data=data, trainer=TrainerRecipe(epochs=1, accelerator="cpu"), seed=3)


def test_files_that_cannot_be_read_are_named_and_lose_no_epoch(folder, monkeypatch):
    said = []
    monkeypatch.setattr(waiting, "note", said.append)
    recipe = small(folder)
    validated = load_data(recipe.data.name, img_size=8).val
    for index in range(2):
        Path(validated.path(index)).write_bytes(b"\xff\xd8 no photo")
    train(recipe, folder / "run", progress=False)
    named = [line for line in said if "cannot be read" in line]
    assert len(named) == 1
    assert named[0].startswith("data: 2 files cannot be read, other images took their place")
    assert all(validated.path(index) in named[0] for index in range(2))
    with pytest.raises(ValueError, match=r"\.jpg cannot be read"):
        train(small(folder, bad_files="stop"), folder / "stopped", progress=False)


def test_images_of_which_a_class_cannot_be_read_are_not_trained_on(folder):
    for file in sorted((folder / "photos").glob("*/"))[0].rglob("*.jpg"):
        file.write_bytes(b"\xff\xd8 no photo")
    with pytest.raises(InputError, match=r"\d+ of \d+ images cannot be read, too many .*\.jpg cannot be read"):
        train(small(folder), folder / "run", progress=False)
    assert not (folder / "run").exists()


def test_images_in_files_are_evaluated_as_they_are_read(folder):
    data = load_data(f"folder:{folder / 'photos'}", img_size=8)
    shape = {"in_chans": 3, "num_classes": 2, "img_size": 8}
    model = create_model("aft_conv_digits", depth=1, embed_dim=16, num_heads=4, **shape).eval()
    found = evaluate(model, data.test, data.classes, batch_size=5)
    images, labels = (torch.stack([torch.as_tensor(item[part]) for item in data.test]) for part in (0, 1))
    expected = torch.nn.functional.cross_entropy(model(images), labels)
    assert found.loss == pytest.approx(expected.item(), rel=1e-5)
    assert [count for _, count, _ in found.by_class] == labels.bincount(minlength=2).tolist()


def test_a_run_that_waits_for_its_data_is_told(folder, monkeypatch):
    said = []
    monkeypatch.setattr(waiting, "note", said.append)
    quick = FileBatches.finished

    def slow(self, batch):
        time.sleep(0.2)
        return quick(self, batch)

    monkeypatch.setattr(FileBatches, "finished", slow)
    train(small(folder, workers=0), folder / "run", progress=False)
    assert len(said) == 1
    assert "training waited for data" in said[0]
    assert "raise data.workers, which is 0" in said[0]


def test_what_is_left_to_the_machine_is_settled(folder):
    recipe = small(folder, batch_size="auto")
    trainer = replace(recipe.trainer, precision="auto", compile="auto", cuda_graphs="auto", accelerator="cpu")
    recipe = replace(recipe, trainer=trainer)
    with pytest.raises(ValueError, match="batch_size auto is found by trying on one GPU"):
        train(recipe, folder / "run", progress=False)
    plain = settled(replace(recipe, data=replace(recipe.data, batch_size=8)), load_data("digits").train)
    assert (plain.trainer.precision, plain.trainer.compile, plain.trainer.cuda_graphs) == ("32-true", False, False)
    path = train(plain, folder / "run", progress=False)
    assert read_config(path).recipe["trainer"]["precision"] == "32-true"


def test_graphs_are_settled_by_the_device_the_mixer_and_the_steps(folder, monkeypatch):
    monkeypatch.setattr("aft_lens.training.on_device.on_gpu", lambda recipe: True)
    data, recipe = load_data("digits").train, small(folder, batch_size=8)
    auto = replace(recipe, trainer=replace(recipe.trainer, cuda_graphs="auto"))
    assert settled(auto, data).trainer.cuda_graphs is True
    assert settled(replace(auto, optim=replace(auto.optim, accumulate=2)), data).trainer.cuda_graphs is False
    window_alone = replace(auto, model=replace(auto.model, outside="none"))
    assert settled(window_alone, data).trainer.cuda_graphs is False


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_batch_that_fits_is_found(folder):
    recipe = small(folder, batch_size="auto")
    recipe = replace(recipe, trainer=replace(recipe.trainer, accelerator="gpu"))
    assert settled(recipe, load_data(recipe.data.name, img_size=8).train).data.batch_size == 32
