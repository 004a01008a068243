"""Uploads: every odd file is either a picture for the model or an answer in words."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from app.uploads import MAX_BYTES, UploadError, fit_image, read_image, to_tensor


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width, height):
    """A PNG that claims a size and holds no pixels, as a decompression bomb does."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"hello, I am text", "not an image"),
        (b"%PDF-1.7 not a picture", "not an image"),
        (b"\0" * (MAX_BYTES + 1), "MiB"),
        (png_header(8000, 8000), "8000 × 8000"),
        (png_header(10_000, 10_000), "million"),
        (png_header(60_000, 60_000), "million"),
        (encoded(Image.new("RGB", (64, 64), "red"))[:60], "damaged|not an image"),
    ],
)
def test_refused_in_words(data, words):
    with pytest.raises(UploadError, match=words):
        read_image(data)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_fits(mode, channels):
    image = Image.new(mode, (50, 20))
    fitted = fit_image(image, 8, channels)
    assert fitted.size == (8, 8)
    assert fitted.mode == ("L" if channels == 1 else "RGB")
    tensor = to_tensor(fitted, [0.5] * channels, [0.25] * channels)
    assert tensor.shape == (channels, 8, 8)
    assert torch.isfinite(tensor).all()


@pytest.mark.parametrize(("size", "kind"), [((1, 1), "PNG"), ((1, 3000), "PNG"), ((640, 480), "JPEG")])
def test_any_shape(size, kind):
    assert fit_image(read_image(encoded(Image.new("RGB", size, "blue"), kind)), 32, 3).size == (32, 32)


def test_transparent_is_white_in_colour_and_black_in_grey():
    clear = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    assert fit_image(clear, 4, 3).getpixel((0, 0)) == (255, 255, 255)
    assert fit_image(clear, 4, 1).getpixel((0, 0)) == 0
    assert fit_image(clear, 4, 1, invert=True).getpixel((0, 0)) == 0, "the light paper of a dark drawing"


def test_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read_image(encoded(Image.new("RGB", (30, 10)), "JPEG", exif=exif)).size == (10, 30)


def test_normalisation():
    image = Image.fromarray(np.full((2, 2), 255, np.uint8))
    assert torch.allclose(to_tensor(image, [0.5], [0.5]), torch.ones(1, 2, 2))
