"""One reader and one fit: whatever a file is like, a folder, a command and an upload make the same input of it."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from aft_lens.checkpoint import revision, save_checkpoint
from aft_lens.data import (
    DataSource,
    ImageError,
    fit,
    flatten,
    how_read,
    load_data,
    model_input,
    read_image,
    representative,
)
from aft_lens.data import image as reading
from aft_lens.data.transforms import eval_transform, train_transform
from aft_lens.models import create_model
from analyses import keys
from app.back import reads
from app.uploads import UploadError, fit_image, to_tensor
from app.uploads import read_image as read_upload

RAMP = np.linspace(0, 65535, 28 * 56).reshape(28, 56).astype(np.uint16)
COLOUR = np.random.default_rng(0).integers(0, 256, (28, 56, 3), dtype=np.uint8)


def turned(exif_orientation):
    exif = Image.Exif()
    exif[0x0112] = exif_orientation
    return exif


def write_kinds(folder):
    """A file of every kind, all but the small one 28 x 56."""
    folder.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(COLOUR)
    clear = picture.convert("RGBA")
    clear.putalpha(Image.fromarray(np.uint8(RAMP >> 8)))
    palette = picture.quantize(16)
    palette.info["transparency"] = 3
    picture.save(folder / "a-wide.png")
    Image.fromarray(RAMP).save(folder / "b-grey16.png")
    Image.fromarray(RAMP).save(folder / "c-grey16.tiff")
    (folder / "d-grey16.pgm").write_bytes(b"P5 56 28 65535\n" + RAMP.astype(">u2").tobytes())
    picture.save(folder / "e-turned.jpg", exif=turned(6))
    clear.save(folder / "f-transparent.png")
    clear.convert("LA").save(folder / "g-grey-transparent.png")
    palette.save(folder / "h-palette.png")
    picture.convert("CMYK").save(folder / "i-cmyk.jpg")
    palette.save(folder / "j-still.gif")
    picture.quantize(8).save(folder / "k-moving.gif", save_all=True, append_images=[Image.new("P", (56, 28))])
    picture.convert("1").save(folder / "l-black-white.bmp")
    clear.save(folder / "m-lossless.webp", lossless=True)
    picture.resize((5, 7)).save(folder / "n-small.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder data set whose test images are of every kind, and a checkpoint that was trained on it."""
    root = tmp_path_factory.mktemp("kinds")
    for split in ("train", "val"):
        (root / split / "things").mkdir(parents=True)
        Image.fromarray(COLOUR).save(root / split / "things" / "0.png")
    files = write_kinds(root / "test" / "things")
    data = load_data(f"folder:{root}", img_size=16)
    model = create_model("aft_conv_digits", depth=1, img_size=16, patch_size=4, in_chans=3, num_classes=1)
    path = save_checkpoint(root / "m", model, data=data.record(), recipe={}, seed=0, metrics=[])
    return data, files, path


def test_one_file_three_ways(trained, monkeypatch):
    data, files, path = trained
    assert len(data.test) == len(files) == 14
    seen = []

    class Seen(Exception):
        pass

    def look(_model, image):
        seen.append(image)
        raise Seen

    monkeypatch.setattr(keys, "key_maps", look)
    for number, file in enumerate(files):
        sample, _ = data.test[number]
        with pytest.raises(Seen):
            keys.command(path, image=file)
        upload, _, _ = reads.image_of(str(path), revision(path), "", {"upload": file.read_bytes()})
        assert sample.shape == (3, 16, 16)
        assert sample.std() > 0.1, f"{file.name} shows something"
        assert torch.equal(seen[-1], sample), file.name
        assert torch.equal(upload, sample), file.name
        by_hand = to_tensor(fit_image(read_upload(file.read_bytes()), 16, 3), data.mean, data.std)
        torch.testing.assert_close(by_hand, sample, msg=file.name)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_data_in_memory_is_squeezed_by_all(mode):
    record = load_data("digits", img_size=8).record()
    wide = Image.fromarray(COLOUR).convert(mode)
    expected = eval_transform(8, record["mean"], record["std"])(torch.from_numpy(np.array(wide.convert("L")))[None])
    assert torch.equal(model_input(wide, record), expected)
    by_hand = to_tensor(fit_image(wide, 8, 1), record["mean"], record["std"])
    torch.testing.assert_close(by_hand, expected)


def test_the_crop_is_the_middle_of_the_shorter_side():
    wide = np.zeros((28, 56, 3), np.uint8)
    wide[:, 14:42] = 255
    record = {"name": "imagenet", "img_size": 14, "in_chans": 3, "mean": [0.0] * 3, "std": [1.0] * 3}
    assert model_input(Image.fromarray(wide), record).min() == 1
    assert model_input(Image.fromarray(wide), record | {"name": "cifar10"}).min() == 0
    assert model_input(Image.fromarray(wide), record | {"name": "another machine's"}).min() == 1
    oblong = fit(Image.fromarray(wide), (7, 14), 3, crop=0.5, interpolation="bicubic")
    assert (oblong.shape, oblong.dtype) == ((3, 7, 14), torch.uint8)
    assert oblong.min() > 200


def test_16_bits_are_scaled_by_their_type(tmp_path):
    write_kinds(tmp_path)
    expected = np.repeat((RAMP // 4 >> 8)[..., None], 3, 2)
    Image.fromarray(RAMP // 4).save(tmp_path / "dark.png")
    (tmp_path / "dark.pgm").write_bytes(b"P5 56 28 65535\n" + (RAMP // 4).astype(">u2").tobytes())
    for file in ("dark.png", "dark.pgm"):
        assert np.array_equal(np.asarray(read_image(tmp_path / file)), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_read_upright(tmp_path, orientation):
    stored = Image.fromarray(COLOUR)
    Image.fromarray(RAMP).save(tmp_path / "16.png", exif=turned(orientation))
    stored.save(tmp_path / "x.png", exif=turned(orientation))
    size = (28, 56) if orientation >= 5 else (56, 28)
    assert read_image(tmp_path / "x.png").size == read_image(tmp_path / "16.png").size == size
    half = Image.Transpose.ROTATE_180
    if orientation == 3:
        assert np.array_equal(np.asarray(read_image(tmp_path / "x.png")), np.asarray(stored.transpose(half)))


def test_broken_exif_leaves_the_photo_as_it_is_stored():
    buffer = io.BytesIO()
    Image.fromarray(COLOUR).save(buffer, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\xff\xff")
    assert read_image(buffer.getvalue()).size == (56, 28)


def test_transparent_parts_are_background():
    drawing = np.zeros((16, 16, 4), np.uint8)
    drawing[4:12, 4:12, 3] = 255
    image = Image.fromarray(drawing)
    assert flatten(image, 3).getpixel((0, 0)) == (255, 255, 255)
    assert flatten(image, 3).getpixel((8, 8)) == (0, 0, 0)
    assert flatten(image, 1).getpixel((0, 0)) == 0
    paper = flatten(image, 1, invert=True)
    assert (paper.getpixel((0, 0)), paper.getpixel((8, 8))) == (0, 255), "a dark drawing on paper becomes light on dark"
    assert flatten(Image.new("LA", (2, 2), (9, 255)), 1).getpixel((0, 0)) == 9
    with pytest.raises(ValueError, match="channels must be 1 or 3"):
        flatten(image, 4)


def test_training_images_are_flattened_too():
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    for augment in ("none", "shift", "deit"):
        image = train_transform(augment, 8, [0.0] * 3, [1.0] * 3)(clear)
        assert image.shape == (3, 8, 8)


def test_pixels_of_any_number_of_channels():
    five = torch.randint(0, 256, (5, 8, 8), dtype=torch.uint8)
    assert torch.equal(fit(five, (8, 8), 5), five)
    assert torch.equal(fit(five[:1], (8, 8), 3), five[:1].expand(3, 8, 8))
    torch.testing.assert_close(fit(five[:3], (4, 4), 1), v2.Resize((4, 4), antialias=True)(v2.Grayscale()(five[:3])))
    assert torch.equal(fit(five, (8, 8), 5, invert=True), 255 - five)
    with pytest.raises(ValueError, match="channels must be 5"):
        fit(five, (8, 8), 3)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda file: file.write_bytes(b"no image"), r"x\.png cannot be read \(no image of a known format\); remove"),
        (lambda file: file.write_bytes(b""), r"x\.png cannot be read .*; remove or replace it"),
        (lambda file: file.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "no image of a known"),
        (lambda file: file.mkdir(), r"x\.png cannot be read .*directory"),
        (lambda file: None, "No such file"),
        (os.mkfifo, "it is no file"),
        (lambda file: file.touch() or os.truncate(file, 2**30 + 1), "is too large .1024 MiB; up to 1024 MiB are read"),
        (lambda file: Image.fromarray(COLOUR).save(file) or file.write_bytes(file.read_bytes()[:2000]), "cannot be re"),
        (lambda file: Image.fromarray(np.zeros((8, 8), np.float32)).save(file, "TIFF"), "has 32-bit values; save it"),
        (lambda file: Image.fromarray(np.zeros((8, 8), np.int32)).save(file, "TIFF"), "has 32-bit values; save it"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, write, words):
    write(tmp_path / "x.png")
    with pytest.raises(ImageError, match=words) as caught:
        read_image(tmp_path / "x.png")
    assert type(caught.value)(str(caught.value)).args == caught.value.args, "as it comes from a worker process"


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    Image.new("1", (400, 300)).save(tmp_path / "x.png")
    monkeypatch.setattr(reading, "MAX_FILE_PIXELS", 100_000)
    with pytest.raises(ImageError, match=r"x\.png is too large \(400 × 300 pixels; .*; scale it down"):
        read_image(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageError, match=r"x\.png is too large \(more than .* pixels\)"):
        read_image(str(tmp_path / "x.png"))


def many_scans():
    """A progressive JPEG whose last scan comes again and again."""
    file = io.BytesIO()
    Image.new("L", (1200, 1200), 128).save(file, "JPEG", progressive=True)
    whole = file.getvalue()
    last = whole.rindex(b"\xff\xda")
    return whole[:-2] + whole[last:-2] * 2000 + whole[-2:]


def many_chunks():
    """A PNG with nothing in 100,000 chunks that nobody knows."""
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "PNG")
    chunk = struct.pack(">I", 0) + b"abCd" + struct.pack(">I", zlib.crc32(b"abCd"))
    return file.getvalue()[:33] + chunk * 100_000 + file.getvalue()[33:]


def many_frames():
    """A GIF of 50,000 frames, which are counted."""
    file = io.BytesIO()
    Image.new("P", (4, 4)).save(file, "GIF")
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return file.getvalue()[:-1] + frame * 50_000 + b";"


@pytest.mark.parametrize("made", [many_scans, many_chunks, many_frames])
def test_what_takes_long_to_decode_is_refused_while_it_is_decoded(made, tmp_path, monkeypatch):
    content = made()
    monkeypatch.setattr(reading, "MAX_SECONDS", 0.02)
    with pytest.raises(UploadError, match=r"takes more than 0\.02 s of a processor to decode"):
        read_upload(content)
    (tmp_path / "x").write_bytes(content)
    monkeypatch.setattr(reading, "MAX_FILE_SECONDS", 0.03)
    with pytest.raises(
        ImageError, match=r"x takes too long to decode \(more than 0\.03 s of a processor\); save it again"
    ):
        read_image(tmp_path / "x")


def test_images_that_stand_for_a_split(tmp_path):
    for name, count in (("ant", 100), ("bee", 10), ("cat", 40)):
        for split in ("train", "val"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                Image.new("L", (4, 4), i).save(tmp_path / split / name / f"{i}.png")
    data = load_data(f"folder:{tmp_path}", img_size=4)
    few, more = representative(data.test, 3), representative(data.test, 30)
    assert sorted(data.test.labels[few].tolist()) == [0, 1, 2]
    assert more[:3] == few
    assert torch.bincount(data.test.labels[more]).tolist() == pytest.approx([20, 2, 8], abs=1)
    assert len({*more}) == 30
    assert representative(data.test, None) == representative(data.test, 500) == list(range(150))
    digits: DataSource = load_data("digits")
    assert representative(digits.test, 20) == list(range(20))


def test_what_was_done_to_a_picture_is_said(tmp_path):
    picture = Image.fromarray(COLOUR)
    plain, photo, deep, clear, film = (tmp_path / f"{name}.png" for name in ("plain", "photo", "deep", "clear", "film"))
    picture.save(plain)
    picture.save(photo, exif=turned(6))
    Image.fromarray(RAMP).save(deep)
    with_hole = picture.convert("RGBA")
    with_hole.putalpha(Image.fromarray(np.uint8(RAMP >> 8)))
    with_hole.save(clear)
    picture.save(film.with_suffix(".gif"), save_all=True, append_images=[picture.rotate(90), picture.rotate(180)])
    assert how_read(read_image(plain)) == ""
    assert how_read(read_image(photo)) == "turned upright (EXIF orientation 6)"
    assert how_read(read_image(deep)) == "16 bits scaled to 8"
    assert how_read(read_image(clear)).startswith("transparent parts laid on white")
    assert how_read(read_image(film.with_suffix(".gif"))) == "first of 3 frames"
