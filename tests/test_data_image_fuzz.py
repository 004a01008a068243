"""Any image file, whole or damaged: a picture that every model takes, or words."""

import io
from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from aft_lens.data import ImageError, read_image, to_pixels

KINDS = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "TIFF": ("1", "L", "LA", "RGB", "RGBA", "CMYK", "I;16"),
    "GIF": ("L", "P"),
    "BMP": ("1", "L", "RGB"),
    "WEBP": ("RGB", "RGBA"),
    "PPM": ("L", "RGB", "I;16"),
}
"""Formats and the modes that they keep."""
TURNED = (5, 6, 7, 8)
"""EXIF orientations that lay a picture on its side."""


@st.composite
def pictures(draw):
    """The bytes of an image file, and the (width, height) it must be read with."""
    kind = draw(st.sampled_from(sorted(KINDS)))
    mode = draw(st.sampled_from(KINDS[kind]))
    width, height, seed = draw(st.integers(1, 40)), draw(st.integers(1, 40)), draw(st.integers(0, 2**16))
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8)
    if mode == "I;16":
        image = Image.fromarray(values[..., 0].astype(np.uint16) * 257)
    else:
        image = Image.fromarray(values).convert("RGB" if mode in ("P", "CMYK", "1") else mode).convert(mode)
    options, orientation = {}, draw(st.integers(0, 9))
    if kind in ("PNG", "JPEG", "WEBP", "TIFF"):
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = orientation
    if mode == "P":
        options["transparency"] = draw(st.integers(0, 255))
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue(), (height, width) if options.get("exif") and orientation in TURNED else (width, height)


def check(picture):
    assert picture.mode in ("RGB", "RGBA")
    for channels in (1, 3):
        pixels = to_pixels(picture, channels)
        assert pixels.dtype == torch.uint8
        assert tuple(pixels.shape) == (channels, picture.height, picture.width)


@given(pictures())
@settings(max_examples=120, deadline=None)
def test_any_picture_is_read_upright_at_its_size(drawn):
    content, size = drawn
    picture = read_image(content)
    assert picture.size == size
    check(picture)


@given(pictures(), st.binary(max_size=40), st.floats(0, 1), st.sampled_from([0, 1, 4, 100, 10**6]))
@settings(max_examples=250, deadline=None)
def test_any_damage_is_read_or_answered(drawn, put, place, length):
    content = drawn[0]
    start = int(place * len(content))
    with suppress(ImageError):
        check(read_image(content[:start] + put + content[start + length :]))


@given(st.sampled_from(["F", "I"]), st.floats(allow_nan=True, allow_infinity=True, width=32))
@settings(max_examples=20, deadline=None)
def test_values_without_a_range_are_refused(mode, value):
    file = io.BytesIO()
    values = np.full((3, 4), value if mode == "F" else 7, np.float32 if mode == "F" else np.int32)
    Image.fromarray(values).save(file, "TIFF")
    with pytest.raises(ImageError, match="32-bit values"):
        read_image(file.getvalue())
