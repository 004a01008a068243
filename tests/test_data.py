"""Data sets by name: fixed splits, normalisation, samples, and errors that say what to do."""

import pytest
import torch

from aft_lens.data import (
    AUGMENTATIONS,
    DATASETS,
    UNCOUNTED,
    EpochOrder,
    EqualShares,
    Seeded,
    batch_transform,
    load_data,
    load_samples,
    save_samples,
)
from aft_lens.data.sets.fashion_mnist import DEBIAN_FASHION


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
    for file in (tmp_path / "samples").iterdir():
        file.rename(file.with_name(file.name.replace("-", "_").partition("_")[0] + ".png"))
    without = load_samples(data.record(), tmp_path)
    assert without.test.labels.tolist() == [UNCOUNTED] * 32
    assert "32 photographs without classes" in without.split
    torch.testing.assert_close(without.test[31][0], data.test[31][0])


def drawn(rank=0, processes=1, repeats=3, seed=1):
    data = load_data("digits").val
    return EpochOrder(data, lambda: seed, repeats=repeats, processes=processes, rank=rank)


def test_repeated_augmentation_keeps_the_epoch_and_repeats_neighbours():
    order = [index for index, _ in drawn()]
    assert len(order) == len(drawn()) == 180
    assert order[0] == order[1] == order[2] != order[3]
    assert len({seed for _, seed in drawn()}) == 180


@pytest.mark.parametrize("repeats", [1, 3])
def test_one_draw_of_seed_and_epoch_is_dealt_to_all_processes(repeats):
    torch.manual_seed(5)
    shares = [list(drawn(rank, 4, repeats)) for rank in range(4)]
    torch.manual_seed(6)
    order = list(drawn(repeats=repeats))
    assert [one for row in zip(*shares, strict=True) for one in row] == order
    assert list(drawn(repeats=repeats, seed=2)) != order
    assert repeats > 1 or sorted(index for index, _ in order) == list(range(180))


def test_an_item_depends_on_its_seed_and_leaves_the_random_state_alone():
    data = Seeded(load_data("digits", augment="affine").train)
    state = torch.get_rng_state()
    first, label = data[3, 7]
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(9)
    assert torch.equal(data[3, 7][0], first)
    assert data[3, 7][1] == label
    assert not torch.equal(data[3, 8][0], first)


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
