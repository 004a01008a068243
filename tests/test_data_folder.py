"""A user's own folder of images: its classes, its splits, and files that are no images."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from aft_lens.data import eval_transform, load_data
from aft_lens.data.transforms import train_transform


def folder_of(path, classes=("cat", "dog"), count=10, mode="RGB"):
    """A folder for each class with small images, those of the second class brighter."""
    for level, name in enumerate(classes):
        (path / name).mkdir(parents=True)
        for i in range(count):
            values = np.full((8, 8), 60 + 100 * level + i)
            image = Image.fromarray(np.uint16(values * 256)) if mode == "I;16" else Image.fromarray(np.uint8(values))
            image.save(path / name / f"{i}.png")


def test_folder_of_colour_images_of_any_size(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(10):
            size = (20 + i, 30, 3)
            Image.fromarray(rng.integers(0, 255, size, dtype=np.uint8)).save(tmp_path / name / f"{i}.png")
    data = load_data(f"folder:{tmp_path}", img_size=32, augment="deit")
    assert data.classes == ["cat", "dog"]
    assert len(data.train) + len(data.val) + len(data.test) == 20
    assert data.train[0][0].shape == (3, 32, 32)
    assert "70 %" in data.split


def test_folders_split_already_hold_out_what_is_missing(tmp_path):
    folder_of(tmp_path / "train", count=20)
    data = load_data(f"folder:{tmp_path}", img_size=8)
    assert [len(part) for part in (data.train, data.val, data.test)] == [28, 4, 8]
    folder_of(tmp_path / "test")
    data = load_data(f"folder:{tmp_path}", img_size=8)
    assert data.classes == ["cat", "dog"]
    assert [len(part) for part in (data.train, data.val, data.test)] == [36, 4, 20]
    assert "tenth of train" in data.split
    folder_of(tmp_path / "val")
    assert [len(part) for part in (load_data(f"folder:{tmp_path}").train, data.test)] == [40, 20]
    (tmp_path / "masks").mkdir()
    assert load_data(f"folder:{tmp_path}").classes == ["cat", "dog"]
    (tmp_path / "val").rename(tmp_path / "valid")
    with pytest.raises(ValueError, match="name the splits train, val and test"):
        load_data(f"folder:{tmp_path}")


def test_grey_images_of_16_bits_keep_their_range(tmp_path):
    folder_of(tmp_path, mode="I;16")
    data = load_data(f"folder:{tmp_path}", img_size=8)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (data.mean, data.std))
    for image, label in data.train:
        level = 255 * (image * std + mean)
        assert 0 <= float(level.mean()) - (60 + 100 * int(label)) <= 9.1


def test_an_image_that_cannot_be_read_is_named(tmp_path):
    folder_of(tmp_path)
    (tmp_path / "cat" / "0.png").write_bytes(b"no image")
    data = load_data(f"folder:{tmp_path}", img_size=8)
    with pytest.raises(ValueError, match=r"cat/0\.png cannot be read .* remove or replace it"):
        [image for part in (data.train, data.val, data.test) for image in part]


@pytest.mark.parametrize("hidden", [".ipynb_checkpoints", "__MACOSX"])
def test_what_tools_leave_behind_is_no_class_and_no_image(tmp_path, hidden):
    folder_of(tmp_path)
    names = sorted(Path(file).name for file, _ in load_data(f"folder:{tmp_path}").train.source.samples)
    (tmp_path / hidden).mkdir()
    assert load_data(f"folder:{tmp_path}", img_size=8).classes == ["cat", "dog"]
    for place in (tmp_path / hidden, tmp_path / "cat" / hidden):
        shutil.copytree(tmp_path / "dog", place, dirs_exist_ok=True)
    (tmp_path / "cat" / "._0.png").write_bytes(b"\0\5\x16\7")
    data = load_data(f"folder:{tmp_path}", img_size=8)
    assert data.classes == ["cat", "dog"]
    assert sorted(Path(file).name for file, _ in data.train.source.samples) == names
    assert len([*data.train]) == 14


def test_a_hidden_place_is_no_hidden_image(tmp_path):
    folder_of(tmp_path / ".cache" / "pets")
    assert len(load_data(f"folder:{tmp_path / '.cache' / 'pets'}").train) == 14


@pytest.mark.parametrize(
    "names",
    [("Training", "Testing"), ("Train", "Val"), ("TRAIN", "TEST"), ("training", "validation"), ("train", "Test")],
)
def test_splits_of_other_names_are_no_classes(tmp_path, names):
    for split in names:
        folder_of(tmp_path / split)
    with pytest.raises(ValueError, match=f"holds {', '.join(sorted(names))}; name the splits train, val and test"):
        load_data(f"folder:{tmp_path}")


def test_a_class_may_be_called_as_a_split_is(tmp_path):
    folder_of(tmp_path, ("Test", "bus"))
    assert load_data(f"folder:{tmp_path}").classes == ["Test", "bus"]


def test_worker_processes_read_folders(tmp_path):
    folder_of(tmp_path)
    data = load_data(f"folder:{tmp_path}", img_size=8)
    pickle.loads(pickle.dumps(data.train))  # as processes that are not forked get it
    assert len([*DataLoader(data.train, 7, num_workers=1)]) == 2


def test_a_folder_is_named(tmp_path):
    for name in ("folder", "folder:"):
        with pytest.raises(ValueError, match="must be folder:PATH"):
            load_data(name)
    with pytest.raises(FileNotFoundError, match="holds no folders; give a folder of images for each class"):
        load_data(f"folder:{tmp_path}")


@pytest.mark.parametrize("augment", ["shift", "affine", "flip-crop"])
def test_training_and_validation_show_the_same_part_of_a_wide_image(augment):
    picture = Image.new("RGB", (64, 16))
    picture.paste((255, 255, 255), (24, 0, 40, 16))  # the middle, which a centre crop shows alone
    plain = eval_transform(16, [0.0] * 3, [1.0] * 3, crop=True)(picture)
    torch.manual_seed(0)
    drawn = torch.stack([train_transform(augment, 16, [0.0] * 3, [1.0] * 3, crop=True)(picture) for _ in range(20)])
    assert plain.mean() > 0.95
    assert drawn.mean() > 0.75


def test_jfif_files_are_images(tmp_path):
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for number in range(10):
            Image.effect_noise((8, 8), 50).save(tmp_path / name / f"{number}.jfif", "JPEG")
    assert len(load_data(f"folder:{tmp_path}").train) == 14


def test_what_is_left_out_is_named_with_why(tmp_path, capsys):
    for split in ("train", "val"):
        folder_of(tmp_path / split)
    load_data(f"folder:{tmp_path}")
    assert capsys.readouterr().err == ""
    for file in ("train/cat/a.avif", "train/cat/b.AVIF", "val/dog/notes.txt", "train/dog/._0.png", "0.png", "README"):
        (tmp_path / file).write_bytes(b"x")
    (tmp_path / "masks").mkdir()
    load_data(f"folder:{tmp_path}")
    assert (
        "left out 2 .avif, 1 .txt, 1 folder beside the splits (masks), 1 hidden, 1 outside the classes' folders, "
        "1 without a suffix; image files end in .png"
    ) in capsys.readouterr().err
    load_data(f"images:{tmp_path}", labelled=False)
    assert "left out 2 .avif, 1 .txt, 1 hidden, 1 without a suffix; image" in capsys.readouterr().err
