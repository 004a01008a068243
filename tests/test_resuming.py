"""Going on: the same weights as without a break, damaged and foreign resume files, what may change, one at a time."""

import io
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_advice import LIGHTNING_ADVICE
from PIL import Image

from aft_lens.checkpoint import load_checkpoint, read_metrics, read_snapshots
from aft_lens.errors import InputError
from aft_lens.files import locked
from aft_lens.models import VisionModel, model_config
from aft_lens.training import DataRecipe, OptimRecipe, Recipe, TrainerRecipe, train
from aft_lens.training.resuming import KEPT, resume_files
from aft_lens.training.run import state_folder

pytestmark = [pytest.mark.filterwarnings(line) for line in LIGHTNING_ADVICE]


def tiny(**changes):
    fields = {"depth": 1, "embed_dim": 16, "num_heads": 2, "position_bias": "single", "window_size": 3}
    recipe = Recipe(
        model=model_config("aft_conv_digits", **fields),
        data=DataRecipe(augment="shift"),
        optim=OptimRecipe(lr=0.005, warmup_epochs=1),
        trainer=TrainerRecipe(epochs=3, accelerator="cpu", limit_batches=3),
        seed=3,
    )
    return replace(recipe, **changes)


def broken_after(monkeypatch, recipe, path, epochs):
    """Train until a step of the epoch after, and stop there as a kill does."""

    class Stop(Exception):
        pass

    def stop(self, trainer, module, *rest):
        if trainer.current_epoch == epochs:
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr("aft_lens.training.checkpointing.Checkpointing.on_train_batch_end", stop)
        with pytest.raises(Stop):
            train(recipe, path, progress=False)
    assert len(read_metrics(path)) == epochs


def assert_same_weights(one, other):
    expected, found = (load_checkpoint(path).model.state_dict() for path in (one, other))
    for name in expected:
        assert torch.equal(expected[name], found[name]), name


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of images that augmentation changes."""
    root, draw = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name in ("ant", "bee"):
        (root / name).mkdir()
        for number in range(20):
            pixels = draw.integers(0, 255, (16, 16, 3)).astype("uint8")
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return f"folder:{root}"


@pytest.mark.parametrize(
    ("data", "optim"),
    [
        (DataRecipe(augment="shift"), OptimRecipe(lr=0.005)),
        (DataRecipe(augment="shift", resident=True), OptimRecipe(lr=0.005)),
        (DataRecipe(augment="affine", repeats=3), OptimRecipe(lr=0.005, ema=0.8)),
    ],
    ids=["loaded", "resident", "repeated and averaged"],
)
def test_resuming_ends_in_the_same_weights(tmp_path, monkeypatch, data, optim):
    recipe = tiny(data=data, optim=optim)
    whole = train(recipe, tmp_path / "whole", progress=False)
    broken_after(monkeypatch, recipe, tmp_path / "broken", 2)
    resumed = train(recipe, tmp_path / "broken", resume=True, progress=False)
    assert_same_weights(whole, resumed)
    assert len(read_metrics(resumed)) == 3
    assert sorted(read_snapshots(resumed)) == [0, 1, 2]
    assert sorted(resume_files(state_folder(resumed))) == [3 - KEPT + 1, 3]


def test_any_number_of_loader_workers_ends_in_the_same_weights(tmp_path, monkeypatch, photos):
    model = model_config("aft_conv_digits", depth=1, embed_dim=16, num_heads=2, in_chans=3, num_classes=2, img_size=16)
    model = replace(model, position_bias="single", drop_path=0.1)
    data = DataRecipe(name=photos, augment="deit", batch_size=4)

    def with_workers(count):
        return tiny(model=model, data=replace(data, workers=count))

    whole = train(with_workers(0), tmp_path / "none", progress=False)
    broken_after(monkeypatch, with_workers(2), tmp_path / "two", 1)
    assert_same_weights(whole, train(with_workers(2), tmp_path / "two", resume=True, progress=False))
    broken_after(monkeypatch, with_workers(2), tmp_path / "other", 2)
    assert_same_weights(whole, train(with_workers(1), tmp_path / "other", resume=True, progress=False))


def test_a_damaged_resume_file_is_passed_over_for_the_one_before(tmp_path, monkeypatch):
    recipe = tiny()
    whole = train(recipe, tmp_path / "whole", progress=False)
    broken_after(monkeypatch, recipe, tmp_path / "run", 2)
    last = resume_files(state_folder(tmp_path / "run"))[2]
    last.write_bytes(last.read_bytes()[:999])
    with pytest.warns(UserWarning, match=r"epoch=1\.ckpt cannot be read .* going on after epoch 1 from"):
        train(recipe, tmp_path / "run", resume=True, progress=False)
    assert_same_weights(whole, tmp_path / "run")


class Trap:
    def __reduce__(self):
        return os.system, ("touch trapped",)


def archived(content):
    """The bytes that `torch.save` makes of it."""
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read"),
        (pickle.dumps(Trap()), "cannot be read"),
        (archived({"epoch": Trap()}), "cannot be read"),
        ({"model": 1}, "is not of this program: it has no epoch"),
        ({"state_dict": {"model.head.weight": torch.zeros(2, 2)}}, "is of another model"),
        ({"global_step": "many"}, "does not count"),
    ],
    ids=[
        "empty",
        "pickled code",
        "pickled code in an archive",
        "another library's",
        "another model's",
        "without counts",
    ],
)
def test_resume_files_that_cannot_be_used_are_named_with_the_next_step(tmp_path, monkeypatch, content, words):
    monkeypatch.chdir(tmp_path)
    recipe = tiny(trainer=TrainerRecipe(1, "cpu", limit_batches=1))
    path = train(recipe, tmp_path / "run", progress=False)
    (file,) = state_folder(path).glob("epoch=*.ckpt")
    if isinstance(content, dict):
        whole = torch.load(file, weights_only=True)
        torch.save(content if "model" in content else whole | content, file)
    else:
        file.write_bytes(content)
    with pytest.raises(InputError, match=rf"resume file .*epoch=0\.ckpt {words}.*, or train on .*--start"):
        train(recipe, path, resume=True, progress=False)
    assert not Path("trapped").exists()
    assert load_checkpoint(path).seed == 3


def test_a_run_is_not_overwritten_and_resumes_only_its_recipe(tmp_path):
    short = tiny(trainer=TrainerRecipe(1, "cpu"), data=DataRecipe(augment="shift", batch_size=1000))
    train(short, tmp_path / "run", progress=False)
    with pytest.raises(FileExistsError, match="--resume"):
        train(short, tmp_path / "run", progress=False)
    with pytest.raises(ValueError, match=r"optim\.lr"):
        train(replace(short, optim=OptimRecipe(lr=0.1)), tmp_path / "run", resume=True, progress=False)
    with pytest.raises(FileNotFoundError, match="without --resume"):
        train(short, tmp_path / "other", resume=True, progress=False)
    with pytest.raises(InputError, match="took 1 steps an epoch and would go on with 2"):
        train(replace(short, data=DataRecipe(augment="shift", batch_size=600)), tmp_path / "run", resume=True)


def test_a_run_whose_state_was_not_moved_with_it_is_not_called_empty(tmp_path):
    path = train(tiny(trainer=TrainerRecipe(1, "cpu", limit_batches=1)), tmp_path / "run", progress=False)
    state_folder(path).rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="has 1 whole epochs, but its resume files are not in"):
        train(tiny(trainer=TrainerRecipe(1, "cpu", limit_batches=1)), path, resume=True, progress=False)


def test_a_run_broken_off_before_its_first_resume_file_begins_again(tmp_path, monkeypatch):
    short = tiny(trainer=TrainerRecipe(2, "cpu", limit_batches=1))
    whole = train(short, tmp_path / "whole", progress=False)
    path = tmp_path / "run"
    broken_after(monkeypatch, short, path, 1)
    for file in state_folder(path).glob("epoch=*.ckpt"):
        file.unlink()
    with pytest.raises(InputError, match=r"other values of seed"):
        train(replace(short, seed=5), path, resume=True, progress=False)
    with pytest.warns(UserWarning, match="before its first resume file was written: it begins again"):
        train(short, path, resume=True, progress=False)
    assert len(read_metrics(path)) == 2
    assert_same_weights(whole, path)


def test_a_run_with_a_start_does_not_begin_again_without_it(tmp_path):
    short = tiny(trainer=TrainerRecipe(1, "cpu", limit_batches=1))
    first = VisionModel(short.model)
    path = train(short, tmp_path / "run", progress=False, start=first, origin="elsewhere")
    for file in state_folder(path).glob("epoch=*.ckpt"):
        file.unlink()
    with pytest.raises(FileNotFoundError, match="has 1 whole epochs, but its resume files"):
        train(short, path, resume=True, progress=False)


def test_more_epochs_may_be_asked_for_and_fewer_not(tmp_path):
    def to(epochs):
        return tiny(trainer=TrainerRecipe(epochs, "cpu", limit_batches=1))

    path = train(to(2), tmp_path / "run", progress=False)
    with pytest.raises(InputError, match="was to have 2 epochs"):
        train(to(1), path, resume=True, progress=False)
    with pytest.warns(UserWarning, match="goes on to 4 epochs in place of 2"):
        train(to(4), path, resume=True, progress=False)
    assert [row["epoch"] for row in read_metrics(path)] == [0, 1, 2, 3]


def test_a_second_process_on_a_run_is_refused_and_a_killed_one_leaves_no_lock(tmp_path):
    holder = "import sys, time; from aft_lens.files import locked\n"
    holder += "with locked(sys.argv[1], ''):\n    print('locked', flush=True); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", holder, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    short = tiny(trainer=TrainerRecipe(1, "cpu", limit_batches=1))
    for resume in (False, True):
        with pytest.raises(InputError, match="is being written by another process; wait until it ends"):
            train(short, tmp_path / "run", resume=resume, progress=False)
    process.kill()
    process.communicate()
    train(short, tmp_path / "run", progress=False)
    with locked(tmp_path / "run", ""):
        pass
    assert not list(tmp_path.glob(".*"))
