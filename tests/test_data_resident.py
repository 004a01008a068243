"""Batches of images that live on the training device: the same images, drawn and moved a batch at a time."""

import pytest
import torch
from PIL import Image

from aft_lens.data import UNCOUNTED, ResidentBatches, load_data
from aft_lens.data.resident import RESIDENT_AUGMENTATIONS, augmented, resized_crops
from aft_lens.data.transforms import train_transform
from aft_lens.training import read_recipe


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


@pytest.mark.parametrize("augment", [name for name in RESIDENT_AUGMENTATIONS if name != "resized-crop"])
def test_batch_augmentation_moves_each_image_within_the_reach(augment):
    torch.manual_seed(0)
    image = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    image[0, 0, 8, 8:10] = torch.tensor([100, 200], dtype=torch.uint8)
    out = augmented(image.expand(2000, -1, -1, -1), augment, 8)
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
    batch = augmented(image.expand(3000, 1, 8, 8), "shift", 8).float() / 255
    torch.testing.assert_close(single.mean(0), batch.mean(0), atol=0.04, rtol=0)


def test_crops_by_batch_have_the_distribution_of_crops_by_image():
    torch.manual_seed(0)
    image = (4 * torch.arange(64)).to(torch.uint8).reshape(1, 64, 1).expand(1, 64, 64)
    one = train_transform("resized-crop", 8, [0.0], [1.0])
    single = torch.stack([one(image) for _ in range(3000)])
    batch = resized_crops(image.expand(3000, 1, 64, 64), 8).float() / 255
    torch.testing.assert_close(single.mean(0), batch.mean(0), atol=0.02, rtol=0)
    torch.testing.assert_close(single.std(0), batch.std(0), atol=0.03, rtol=0)
    spans = [(crops[:, 0, -1, 3] - crops[:, 0, 0, 3]).double() for crops in (single, batch)]  # rows that a crop spans
    for share in (0.1, 0.5, 0.9):
        assert float(spans[0].quantile(share)) == pytest.approx(float(spans[1].quantile(share)), abs=0.03)


def test_crops_are_of_the_picture_s_own_size_and_others_see_the_whole():
    data = load_data("digits", img_size=6)
    batches = ResidentBatches(data, "train", 64, augment="resized-crop", order=lambda: 0)
    assert batches.images.shape[2:] == (8, 8)
    images, _ = next(iter(batches))
    assert images.shape == (64, 1, 6, 6)
    assert ResidentBatches(data, "test", 64).images.shape[2:] == (6, 6)


def test_validation_images_can_be_trained_on():
    data = load_data("digits")
    joined = data.joined()
    assert len(joined.train) == len(data.train) + len(data.val)
    torch.testing.assert_close(joined.train.labels[len(data.train) :], data.val.labels)
    assert "trained on" in joined.split
    recipe = read_recipe("digits-conv", "data.held_out=false")
    assert not recipe.data.held_out


def test_resident_batches_refuse_what_they_cannot_do(tmp_path):
    with pytest.raises(ValueError, match="'flip-crop'"):
        ResidentBatches(load_data("digits"), "train", 8, augment="deit")
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(10):
            Image.new("RGB", (8, 8), (i, i, i)).save(tmp_path / name / f"{i}.png")
    with pytest.raises(ValueError, match=r"data\.resident"):
        ResidentBatches(load_data(f"folder:{tmp_path}", img_size=8), "train", 8)
