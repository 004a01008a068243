"""Data sets by name: fixed splits, normalisation, folders, and errors that say what to do."""

import numpy as np
import pytest
import torch
from PIL import Image

from aft_lens.data import AUGMENTATIONS, DATASETS, RepeatedAugmentation, batch_transform, load_data
from aft_lens.data.load import DEBIAN_FASHION


def test_digits_split_is_fixed_stratified_and_disjoint():
    first, again = load_data("digits"), load_data("digits")
    assert [len(part) for part in (first.train, first.val, first.test)] == [1257, 180, 360]
    assert torch.equal(first.test.images, again.test.images)
    counts = torch.bincount(first.test.labels)
    assert counts.min() >= 34
    assert counts.max() <= 38
    rows = [{image.numpy().tobytes() for image in part.images} for part in (first.train, first.val, first.test)]
    assert len(set.union(*rows)) == 1797


def test_training_split_is_normalised():
    data = load_data("digits")
    pixels = torch.stack([data.train[i][0] for i in range(len(data.train))])
    assert abs(pixels.mean()) < 0.01
    assert abs(pixels.std() - 1) < 0.01


@pytest.mark.parametrize("augment", AUGMENTATIONS)
def test_every_augmentation_gives_finite_images_that_vary(augment):
    data = load_data("digits", img_size=16, augment=augment)
    torch.manual_seed(0)
    views = torch.stack([data.train[0][0] for _ in range(6)])
    assert views.shape == (6, 1, 16, 16)
    assert torch.isfinite(views).all()
    assert bool((views != views[0]).any()) == (augment != "none")


def test_debian_fashion_mnist():
    if not DEBIAN_FASHION.is_dir():
        pytest.fail("install Debian's package dataset-fashion-mnist to run this test")
    data = load_data("fashion-mnist")
    assert [len(part) for part in (data.train, data.val, data.test)] == [54000, 6000, 10000]
    assert data.train[0][0].shape == (1, 28, 28)
    assert torch.bincount(data.val.labels).tolist() == [600] * 10


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


def test_missing_and_unknown_data_say_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="fashion-mnist"):
        load_data("mnist")
    with pytest.raises(FileNotFoundError, match=r"ILSVRC2012_devkit_t12\.tar\.gz"):
        load_data("imagenet", root=tmp_path)
    with pytest.raises(FileNotFoundError, match="folder of images for each class"):
        load_data(f"folder:{tmp_path / 'none'}")
    with pytest.raises(ValueError, match="augment"):
        load_data("digits", augment="cutout")
    assert "digits" in DATASETS


def test_repeated_augmentation_keeps_the_epoch_and_repeats_neighbours():
    order = list(RepeatedAugmentation(range(10), 3))
    assert len(order) == 10
    assert order[0] == order[1] == order[2] != order[3]


def test_batch_transform_mixes_labels():
    mix = batch_transform(4, 0.8, 1.0)
    assert mix is not None
    images, labels = mix(torch.randn(6, 1, 8, 8), torch.arange(6) % 4)
    assert images.shape == (6, 1, 8, 8)
    assert torch.allclose(labels.sum(1), torch.ones(6))
    assert batch_transform(4, 0.0, 0.0) is None
