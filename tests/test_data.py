"""Data sets by name: fixed splits, normalisation, folders, and errors that say what to do."""

import numpy as np
import pytest
import torch
from PIL import Image

from aft_lens.data import (
    AUGMENTATIONS,
    DATASETS,
    UNCOUNTED,
    EqualShares,
    RepeatedAugmentation,
    ResidentBatches,
    batch_transform,
    load_data,
    load_samples,
    read_image,
    save_samples,
)
from aft_lens.data.resident import RESIDENT_AUGMENTATIONS, augmented
from aft_lens.data.sets.fashion_mnist import DEBIAN_FASHION
from aft_lens.data.transforms import train_transform


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


def folder_of(path, classes=("cat", "dog"), count=10, mode="RGB"):
    """A folder for each class with small images, those of the second class brighter."""
    for level, name in enumerate(classes):
        (path / name).mkdir(parents=True)
        for i in range(count):
            values = np.full((8, 8), 60 + 100 * level + i)
            image = Image.fromarray(np.uint16(values * 256)) if mode == "I;16" else Image.fromarray(np.uint8(values))
            image.save(path / name / f"{i}.png")


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
    Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(ValueError, match="32-bit values"):
        read_image(str(tmp_path / "float.tiff"))


def test_data_with_other_classes_does_not_fit():
    data = load_data("digits")
    data.check_fits(data.record())
    record = data.record() | {"classes": [*data.classes[:-1], "ten"]}
    for changed, words in (
        (record, "number 9 is '9', the model's 'ten'"),
        ({"classes": ["a"]}, "10 classes, the model's data 1"),
        ({"in_chans": 3}, "1 channels, the model's data 3"),
    ):
        with pytest.raises(ValueError, match=words):
            data.check_fits(changed)


def test_noise_has_as_many_images_as_asked_for():
    data = load_data("synthetic:300", img_size=8)
    assert (len(data.train), len(data.val)) == (300, 256)
    assert torch.equal(data.train[1][0], data.train[257][0])
    assert not torch.equal(data.train[1][0], data.train[2][0])
    assert data.record()["name"] == "synthetic:300"
    assert len(load_data("synthetic", img_size=8).train) == 8192
    for name in ("synthetic:", "synthetic:many", "synthetic:0"):
        with pytest.raises(ValueError, match="COUNT 1 or more"):
            load_data(name)


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


def test_samples_beside_a_checkpoint_stand_for_its_data(tmp_path):
    data = load_data("digits")
    save_samples(data, tmp_path)
    kept = load_samples(data.record(), tmp_path)
    assert len(kept.test) == len(list((tmp_path / "samples").iterdir())) == 32
    assert "32 test images" in kept.split
    for i in (0, 31):
        image, label = kept.test[i]
        torch.testing.assert_close(image, data.test[i][0])
        assert label == data.test[i][1]
    with pytest.raises(FileNotFoundError, match="get the data set 'digits'"):
        load_samples(data.record(), tmp_path / "elsewhere")


def repeated(rank=0, processes=1):
    return RepeatedAugmentation(load_data("digits").val, 3, seed=1, processes=processes, rank=rank)


def test_repeated_augmentation_keeps_the_epoch_and_repeats_neighbours():
    order = list(repeated())
    assert len(order) == len(repeated()) == 180
    assert order[0] == order[1] == order[2] != order[3]


def test_repeated_augmentation_deals_one_draw_of_seed_and_epoch_to_all_processes():
    torch.manual_seed(5)
    shares = [list(repeated(rank, 4)) for rank in range(4)]
    torch.manual_seed(6)
    order = list(repeated())
    assert [index for row in zip(*shares, strict=True) for index in row] == order
    later = repeated()
    later.set_epoch(1)
    assert list(later) != order


def test_equal_shares_mark_what_they_add():
    data = load_data("digits").val
    shares = EqualShares(data, 7)
    assert len(shares) == 182
    assert [shares[i][1] for i in (179, 180, 181)] == [data[179][1], UNCOUNTED, UNCOUNTED]
    assert len(EqualShares(data, 1)) == len(data)


def test_batch_transform_mixes_labels():
    mix = batch_transform(4, 0.8, 1.0)
    assert mix is not None
    images, labels = mix(torch.randn(6, 1, 8, 8), torch.arange(6) % 4)
    assert images.shape == (6, 1, 8, 8)
    assert torch.allclose(labels.sum(1), torch.ones(6))
    assert batch_transform(4, 0.0, 0.0) is None


@pytest.mark.parametrize("img_size", [8, 12])
def test_resident_batches_are_the_images_that_reading_one_by_one_gives(img_size):
    data = load_data("digits", img_size=img_size)
    batches = list(ResidentBatches(data, "val", 64))
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert len(ResidentBatches(data, "val", 64)) == len(batches) == 3
    for i in range(0, 180, 30):
        image, label = data.val[i]
        torch.testing.assert_close(images[i], image)
        assert labels[i] == label


def test_resident_batches_draw_every_image_once_and_anew():
    data = load_data("digits")
    seeds = iter(range(9))
    batches = ResidentBatches(data, "train", 100, order=lambda: next(seeds))
    first, second = ([labels for _, labels in batches] for _ in range(2))
    assert len(first) == len(batches) == 12
    assert not torch.equal(torch.cat(first), torch.cat(second))
    whole = ResidentBatches(data, "train", 419, order=lambda: 3)
    drawn = torch.cat([images for images, _ in whole]).flatten(1)
    assert len(drawn) == 1257
    assert len(drawn.unique(dim=0)) == len(data.train.images.flatten(1).unique(dim=0))


def test_shares_of_resident_batches_are_one_process_s_batches():
    data = load_data("digits")
    whole = [labels for _, labels in ResidentBatches(data, "train", 60, order=lambda: 3)]
    parts = [ResidentBatches(data, "train", 20, order=lambda: 3, share=(rank, 3)) for rank in range(3)]
    for batch, *shares in zip(whole, *parts, strict=True):
        torch.testing.assert_close(torch.stack([labels for _, labels in shares], 1).flatten(), batch)
    val = [torch.cat([y for _, y in ResidentBatches(data, "val", 50, share=(rank, 7))]) for rank in range(7)]
    assert [len(labels) for labels in val] == [26] * 7
    counted = torch.stack(val, 1).flatten()
    assert (counted[180:] == UNCOUNTED).all()
    torch.testing.assert_close(counted[:180], data.val.labels)


@pytest.mark.parametrize("augment", RESIDENT_AUGMENTATIONS)
def test_batch_augmentation_moves_each_image_within_the_reach(augment):
    torch.manual_seed(0)
    image = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    image[0, 0, 8, 8:10] = torch.tensor([100, 200], dtype=torch.uint8)
    out = augmented(image.expand(2000, -1, -1, -1), augment)
    assert out.shape == (2000, 1, 16, 16)
    assert (out.flatten(1).sum(1) == 300 if augment == "none" else out.flatten(1).amax(1) == 200).all()
    places = (out == 200).nonzero()[:, 2:]
    reach = {"none": 0, "shift": 2, "flip-crop": 2}[augment]
    rows = places[:, 0] - 8
    assert rows.min() == -reach
    assert rows.max() == reach
    flipped = (out[:, 0] == 100).nonzero()[:, 2] > places[:, 1]
    assert flipped.float().mean() == pytest.approx(0.5 if augment == "flip-crop" else 0.0, abs=0.05)


def test_shift_by_batch_has_the_distribution_of_shift_by_image():
    torch.manual_seed(0)
    image = torch.zeros(1, 8, 8, dtype=torch.uint8)
    image[0, 4, 4] = 255
    one = train_transform("shift", 8, [0.0], [1.0])
    single = torch.stack([one(image) for _ in range(3000)]).round()
    batch = augmented(image.expand(3000, 1, 8, 8), "shift").float() / 255
    torch.testing.assert_close(single.mean(0), batch.mean(0), atol=0.04, rtol=0)


def test_resident_batches_refuse_what_they_cannot_do(tmp_path):
    with pytest.raises(ValueError, match="'flip-crop'"):
        ResidentBatches(load_data("digits"), "train", 8, augment="deit")
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(10):
            Image.new("RGB", (8, 8), (i, i, i)).save(tmp_path / name / f"{i}.png")
    with pytest.raises(ValueError, match=r"data\.resident"):
        ResidentBatches(load_data(f"folder:{tmp_path}", img_size=8), "train", 8)
