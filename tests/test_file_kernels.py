"""Kernels that make images of decoded pictures, in Triton's interpreter, against Pillow and torchvision."""

import numpy as np
import pytest
import torch
from apart import run_apart
from photos import odd_files, photo
from PIL import Image

from aft_lens.data import EpochOrder, FileBatches, load_data
from aft_lens.data.augment.draw import DRAWN, Augmentation, Draw, uniforms
from aft_lens.data.augment.randaugment import NAMES, OPERATIONS, change, fill_colour
from aft_lens.data.augment.view import View
from aft_lens.data.files.arrays import Stored, stack
from aft_lens.data.files.decoders import has_nvimagecodec
from aft_lens.data.files.images import Maker
from aft_lens.data.image import read_image

pytest.importorskip("triton", reason="Triton is not installed")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIDE = 16


def levels(images):
    """Normalised images as levels from 0 to 255."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return 255 * (images * std + mean)


def pixels(picture):
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def made(pictures, draws, resampling="bilinear"):
    """What the kernels make of pictures."""
    maker = Maker((SIDE, SIDE), MEAN, STD, resampling, torch.device("cpu"))
    places = np.cumsum([0, *(picture.numel() for picture in pictures)])[:-1].astype(np.int64)
    stored = [Stored((picture.shape[1], picture.shape[2])) for picture in pictures]
    return maker(torch.cat([picture.permute(1, 2, 0).flatten() for picture in pictures]), places, stack(draws, stored))


def check_operations():
    """Every operation gives Pillow's bytes; where pixels are interpolated one in a thousand may differ by a level."""
    view = View((0, 0, SIDE, SIDE), (SIDE, SIDE), (SIDE, SIDE))
    pictures, draws, expected = [], [], []
    for number, name in enumerate(NAMES):
        for sign, level in ((1.0, 0.93), (-1.0, 0.31)):
            picture = photo(SIDE, SIDE, number)
            done = OPERATIONS[name](name, level, sign, (SIDE, SIDE))
            pictures.append(pixels(picture))
            draws.append(Draw(view, (None, done)))
            expected.append(pixels(change(picture, done, fill_colour(MEAN))))
    flat = Image.new("RGB", (SIDE, SIDE), (7, 7, 7))  # no contrast to stretch, no histogram to equalize
    for name in ("autocontrast", "equalize"):
        pictures.append(pixels(flat))
        draws.append(Draw(view, (None, OPERATIONS[name](name, 0.9, 1.0, (SIDE, SIDE)))))
        expected.append(pixels(flat))
    off = (levels(made(pictures, draws)) - torch.stack(expected)).abs()
    assert off.max() < 1.01
    assert (off > 0.01).float().mean() < 1e-3
    tables = [i for i, draw in enumerate(draws) if draw.changes[1].matrix is None]
    assert off[tables].max() < 0.01


def check_augmentation(name):
    """A batch is what its pictures become one by one, but for rounding."""
    ours = Augmentation(name, (SIDE, SIDE), MEAN, STD, 0.875)
    sizes = [(20, 30), (9, 11), (1, 1), (50, 17)]
    pictures = [pixels(photo(*size, seed)) for seed, size in enumerate(sizes)]
    draws = [ours.draw(size, uniforms(seed + 2)) for seed, size in enumerate(sizes)]
    expected = torch.stack([ours.apply(picture, draw) for picture, draw in zip(pictures, draws)])
    off = (made(pictures, draws, ours.resampling) - expected).abs() * 255 * 0.229
    assert off.max() < (12 if name == "deit" else 2.1), "an operation can make more of a level"
    assert (off > 1.1).float().mean() < 2e-3
    assert (off > 0.01).float().mean() < 0.05


def check_files(folder):
    """Files of all kinds through the device's way are those of the CPU's."""
    data = load_data(f"images:{folder}", img_size=SIDE, labelled=False)
    ways = [FileBatches(data.test, 64, bad_files="skip", device_made=made) for made in (False, True)]
    (one,), (other,) = ([images for images, _ in way.stages(torch.device("cpu"))] for way in ways)
    assert ways[0].bad == ways[1].bad
    assert len(ways[0].bad) == 4
    assert (one - other).abs().max() * 255 * 0.229 < 2.1


def test_batches_are_what_their_pictures_become_one_by_one(tmp_path):
    for name in odd_files(tmp_path):  # those that go to a decoder, and some that do not
        if not name.startswith(("baseline", "bad", "dot", "deep", "turned-3", "turned-6", "turned-7", "web")):
            (tmp_path / name).unlink()
    photo(90, 120).save(tmp_path / "baseline-large.jpg")  # which a worker that decodes it also resizes
    refused = bytearray((tmp_path / "baseline-large.jpg").read_bytes())
    tables = refused.find(b"\xff\xc4") + 5
    refused[tables : tables + 16] = b"\xff" * 16  # a head that is as it should be, and codes that there cannot be
    (tmp_path / "bad-codes.jpg").write_bytes(refused)
    augmentations = "".join(f"check_augmentation({name!r}); " for name in ("flip-crop", "deit"))
    code = f"check_operations(); {augmentations}check_files({str(tmp_path)!r})"
    run_apart("test_file_kernels", code, interpreted=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("codec", [False, True])
@pytest.mark.parametrize("name", DRAWN)
def test_a_gpu_makes_what_the_cpu_makes(tmp_path, monkeypatch, name, codec):
    own_decoder(monkeypatch, codec)
    names = odd_files(tmp_path)
    data = load_data(f"images:{tmp_path}", img_size=SIDE, labelled=False, augment=name)
    found = []
    for device in ("cpu", "cuda"):
        order = EpochOrder(data.train, lambda: 5, processes=1, rank=0)
        way = FileBatches(data.train, len(names), device=device, order=order, bad_files="skip", workers=2)
        ((images, labels),) = list(way)
        found.append((images.cpu(), labels.cpu()))
        assert sorted(way.bad) == [str(tmp_path / name) for name in names if name.startswith("bad")]
    assert torch.equal(found[0][1], found[1][1])
    off = (found[0][0] - found[1][0]).abs() * 255 * 0.229
    assert off.mean() < 1.5, "decoders differ by a level here and there"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("codec", [False, True])
def test_a_gpu_names_files_that_its_decoder_does_not_take(tmp_path, monkeypatch, codec):
    own_decoder(monkeypatch, codec)
    photo(200, 300).save(tmp_path / "good.jpg", quality=95)
    whole = (tmp_path / "good.jpg").read_bytes()
    (tmp_path / "holes.jpg").write_bytes(whole[:1000] + b"\xff\xd9")
    (tmp_path / "noise.jpg").write_bytes(whole[:700] + bytes(range(256)) * 8 + whole[3000:])
    data = load_data(f"images:{tmp_path}", img_size=SIDE, labelled=False)
    ways = [FileBatches(data.test, 4, device=device, bad_files="skip") for device in ("cpu", "cuda")]
    assert len(ways[1].files[[(0, None), (1, None), (2, None)]].lengths) == 3, "they are left to the GPU"
    images = [next(iter(way))[0].cpu() for way in ways]
    assert (images[0][0] - images[1][0]).abs().mean() < 0.02
    assert read_image(tmp_path / "good.jpg").size == (300, 200)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_that_are_made_beside_a_busy_gpu_are_whole(tmp_path):
    """Memory of pictures is used again by other streams than the one that wrote it."""
    for number in range(96):
        photo(150 + number, 220 - number, number).save(tmp_path / f"{number:02d}.jpg")
    data = load_data(f"images:{tmp_path}", img_size=SIDE, labelled=False)
    expected = torch.cat([images for images, _ in FileBatches(data.test, 8)])
    product = torch.randn(4096, 4096, device="cuda")
    for _ in range(4):
        made = []
        for images, _ in FileBatches(data.test, 8, device="cuda", workers=2):
            for _ in range(3):
                product @ product
            made.append(images.clone())
        off = (torch.cat(made).cpu() - expected).abs() * 255 * 0.229
        assert off.amax((1, 2, 3)).max() < 12
        assert off.mean() < 0.5


def own_decoder(monkeypatch, codec):
    """nvImageCodec, where it is installed, or torchvision's nvJPEG."""
    if codec and not has_nvimagecodec():
        pytest.skip("needs the extra gpu")
    monkeypatch.setattr("aft_lens.data.files.decoders.has_nvimagecodec", lambda: codec)
