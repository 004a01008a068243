"""DeiT's augmentation: drawn from an image's own numbers, by the law of timm's transforms, with Pillow's operations."""

import math
import random
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from aft_lens.data import fit
from aft_lens.data.augment.draw import AREAS, DRAWN, RATIO, UNIFORMS, Augmentation, uniforms
from aft_lens.data.augment.erasing import NUMBERS as ERASING
from aft_lens.data.augment.erasing import Erased, drawn_box, noise
from aft_lens.data.augment.randaugment import NAMES, NUMBERS, OPERATIONS, change, drawn_change, fill_colour
from aft_lens.data.augment.view import TRIES, View, crop_view, fit_view, show
from aft_lens.data.transforms import Mixing

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TIMM = {
    "autocontrast": "AutoContrast", "equalize": "Equalize", "invert": "Invert", "rotate": "Rotate",
    "posterize": "PosterizeIncreasing", "solarize": "SolarizeIncreasing", "solarize_add": "SolarizeAdd",
    "colour": "ColorIncreasing", "contrast": "ContrastIncreasing", "brightness": "BrightnessIncreasing",
    "sharpness": "SharpnessIncreasing", "shear_x": "ShearX", "shear_y": "ShearY", "translate_x": "TranslateXRel",
    "translate_y": "TranslateYRel",
}  # fmt: skip


def photo(rows, columns, seed=0):
    """A picture with edges and shades."""
    patches = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize((columns, rows), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_operations_are_timm_s(name, sign):
    timm = pytest.importorskip("timm.data.auto_augment")
    picture = photo(24, 32)
    hyper = {"img_mean": fill_colour(MEAN), "interpolation": Image.Resampling.BICUBIC}
    for level in (0.0, 0.31, 0.9, 0.97):
        how, what = timm.LEVEL_TO_ARG[TIMM[name]], timm.NAME_TO_OP[TIMM[name]]
        random.seed(next(i for i in range(99) if (random.seed(i) or random.random() > 0.5) == (sign < 0)))
        arguments = how(10 * level, hyper) if how else ()
        expected = what(picture, *arguments, fillcolor=fill_colour(MEAN), resample=Image.Resampling.BICUBIC)
        found = change(picture, OPERATIONS[name](name, level, sign, (24, 32)), fill_colour(MEAN))
        assert np.array_equal(np.asarray(found), np.asarray(expected)), level


def test_grey_images_are_changed_too():
    picture = photo(12, 12).convert("L")
    for name, make in OPERATIONS.items():
        assert change(picture, make(name, 0.9, 1.0, (12, 12)), fill_colour([0.3])).mode == "L"


def test_all_bits_can_go():
    drawn = OPERATIONS["posterize"]("posterize", 1.0, 1.0, (4, 4))
    assert np.asarray(change(photo(4, 4), drawn, (0, 0, 0))).max() == 0


def test_operations_have_deit_s_law():
    count = 30_000
    numbers = torch.rand(count, NUMBERS, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tolist()
    drawn = [drawn_change(each, (100, 100)) for each in numbers]
    done = Counter(each.name for each in drawn if each is not None)
    assert sum(done.values()) / count == pytest.approx(0.5, abs=0.01)
    assert stats.chisquare([done[name] for name in NAMES]).pvalue > 1e-3
    moved = np.array([each.matrix[2] for each in drawn if each is not None and each.name == "translate_x"]) / 45
    assert (moved > 0).mean() == pytest.approx(0.5, abs=0.06)
    magnitudes = 10 * np.abs(moved)
    inner = magnitudes[magnitudes < 10]
    assert stats.kstest(inner, stats.truncnorm(-18, 2, 9, 0.5).cdf).pvalue > 1e-3
    assert (magnitudes >= 10).mean() == pytest.approx(stats.norm.sf(2), abs=0.02)


def test_crops_have_the_law_of_timm_s():
    transforms = pytest.importorskip("timm.data.transforms")
    random.seed(0)
    size, picture = (40, 150), Image.new("RGB", (150, 40))
    theirs = [transforms.RandomResizedCropAndInterpolation.get_params(picture, (0.08, 1.0), RATIO)
              for _ in range(4000)]  # fmt: skip
    ours = [crop_view(size, (8, 8), AREAS["deit"], RATIO, uniforms(i)[: 2 * TRIES + 2]).box for i in range(4000)]
    for one, other in zip(zip(*ours, strict=True), zip(*theirs, strict=True), strict=True):
        assert stats.ks_2samp(one, other).pvalue > 1e-3


def test_boxes_that_are_erased_have_the_law_of_timm_s():
    erasing = pytest.importorskip("timm.data.random_erasing")
    random.seed(0)
    theirs = []
    transform = erasing.RandomErasing(0.25, mode="pixel", device="cpu")
    for _ in range(8000):
        image = torch.zeros(1, 30, 50)
        rows, columns = transform(image)[0].nonzero(as_tuple=True)
        if len(rows):
            theirs.append((int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1))
    drawn = [drawn_box(uniforms(i)[-ERASING:], (30, 50)) for i in range(8000)]
    ours = [(top, left, top + rows, left + columns)
            for top, left, rows, columns in (each.box for each in drawn if each is not None)]  # fmt: skip
    assert len(ours) == pytest.approx(len(theirs), abs=4 * math.sqrt(2 * 8000 * 0.25 * 0.75))
    for one, other in zip(zip(*ours, strict=True), zip(*theirs, strict=True), strict=True):
        assert stats.ks_2samp(one, other).pvalue > 1e-3


def test_noise_is_standard_normal_and_its_seed_s_alone():
    number = torch.arange(40_000)
    found = noise(number, 7)
    assert stats.kstest(found.numpy(), "norm").pvalue > 1e-3
    assert torch.equal(found, noise(number, 7))
    assert abs(float(torch.corrcoef(torch.stack([found, noise(number, 8)]))[0, 1])) < 0.02
    assert abs(float(torch.corrcoef(torch.stack([found[1:], found[:-1]]))[0, 1])) < 0.02
    assert float(found.abs().max()) < 6


def test_deit_has_the_law_of_timm_s_whole_transform(monkeypatch):
    create = pytest.importorskip("timm.data").create_transform
    policy = pytest.importorskip("timm.data.auto_augment")

    def posterize(picture, bits, **_):  # Pillow refuses 0 bits since
        return picture.point(lambda value: value & ~(2 ** (8 - bits) - 1))

    monkeypatch.setitem(policy.NAME_TO_OP, "PosterizeIncreasing", posterize)
    theirs = create(
        16, is_training=True, color_jitter=0.3, auto_augment="rand-m9-mstd0.5-inc1", interpolation="bicubic",
        re_prob=0.25, re_mode="pixel", re_count=1,
    )  # fmt: skip
    picture = photo(30, 40)
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    ours = Augmentation("deit", (16, 16), MEAN, STD)
    count = 1500
    sets = [torch.stack([transform(picture) for _ in range(count)]) for transform in (ours, theirs)]
    for values in (lambda x: x.mean((1, 2, 3)), lambda x: x.std((1, 2, 3)), lambda x: x[:, 0, 8, 8]):
        one, other = (values(images).numpy() for images in sets)
        assert stats.ks_2samp(one, other).pvalue > 1e-3


@pytest.mark.parametrize("size", [(37, 50), (50, 37), (17, 9), (1, 1), (33, 33)])
@pytest.mark.parametrize(("target", "crop"), [((8, 8), 0.875), ((12, 12), 1.0), ((8, 14), 0.9)])
def test_a_view_shows_what_fit_makes(size, target, crop):
    pixels = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for mode in ("bilinear", "bicubic"):
        expected = fit(pixels, target, 3, crop=crop, interpolation=mode)
        assert torch.equal(show(pixels, fit_view(size, target, crop), mode), expected)


def test_a_view_moves_flips_and_is_black_beyond():
    pixels = torch.arange(1, 17, dtype=torch.uint8).view(1, 4, 4)
    whole = (0, 0, 4, 4)
    moved = show(pixels, View(whole, (4, 4), (4, 4), move=(1, -2)), "bilinear")
    assert moved[0].tolist() == [[0, 0, 5, 6], [0, 0, 9, 10], [0, 0, 13, 14], [0, 0, 0, 0]]
    assert show(pixels, View(whole, (4, 4), (4, 4), flip=True), "bilinear")[0, 0].tolist() == [4, 3, 2, 1]


@pytest.mark.parametrize("name", DRAWN)
def test_an_image_is_its_seed_s(name):
    ours, picture = Augmentation(name, (8, 8), MEAN, STD, 0.875), photo(20, 30)
    torch.manual_seed(3)
    drawn = torch.rand(UNIFORMS, dtype=torch.float64).tolist()
    assert drawn == uniforms(3)
    torch.manual_seed(3)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    assert torch.equal(ours(picture), ours.apply(pixels, ours.draw((20, 30), uniforms(3))))


def test_erased_pixels_are_noise_and_others_stay():
    image = Augmentation("none", (8, 8), MEAN, STD)(photo(8, 8))
    draw = Augmentation("none", (8, 8), MEAN, STD).draw((8, 8), ())
    erased = Augmentation("none", (8, 8), MEAN, STD).apply(
        torch.from_numpy(np.array(photo(8, 8))).permute(2, 0, 1), type(draw)(draw.view, (), Erased((1, 2, 3, 4), 5))
    )
    changed = (erased != image).all(0)
    assert changed.nonzero().tolist() == [[y, x] for y in range(1, 4) for x in range(2, 6)]


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_mixing_has_the_law_of_timm_s(mixup, cutmix):
    theirs = pytest.importorskip("timm.data.mixup").Mixup(mixup, cutmix, num_classes=2, label_smoothing=0.0)
    ours = Mixing(2, mixup, cutmix)
    np.random.seed(0)
    torch.manual_seed(0)
    labels = torch.tensor([0, 1])
    images = labels.float().view(2, 1, 1, 1).expand(2, 1, 12, 12).contiguous()
    shares: list[list[float]] = [[], []]
    for kept, mix in zip(shares, (ours, theirs), strict=True):
        for _ in range(2000):
            mixed, target = mix(images.clone(), labels)
            torch.testing.assert_close(mixed.mean((1, 2, 3)), target[:, 1], atol=1e-5, rtol=0)
            kept.append(float(target[0, 0]))
    assert stats.ks_2samp(*shares).pvalue > 1e-3


def test_mixing_spares_neighbours_which_may_be_the_same_image():
    mixed, targets = Mixing(6, 1.0, 0.0)(torch.zeros(6, 1, 2, 2), torch.arange(6))
    assert (targets > 0).nonzero()[:, 1].tolist() == [0, 5, 1, 4, 2, 3, 2, 3, 1, 4, 0, 5]
    assert mixed.shape == (6, 1, 2, 2)
