"""The one way from an image file to a model's input: read upright, lay on a background, fit, normalise.

Folders, kept samples, commands and uploads all go through `read_image` and `fit`, so that a file is one input.
"""

import stat
import warnings
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from torch import Tensor

from aft_lens.data.patience import OutOfPatience, PatientBytes, PatientFile
from aft_lens.errors import InputError
from aft_lens.later import later

if TYPE_CHECKING:
    from torchvision.transforms.v2 import functional as F
else:
    F = later("torchvision.transforms.v2.functional")

ORIENTATION = 0x0112
"""EXIF's tag of how a photo is stored turned."""
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""What is decoded, by content: of files and of bytes alike."""
EXTENSIONS = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
"""Names of image files in a folder, in lower case."""
MAX_BYTES = 20 * 2**20
"""Most bytes of an image that is handed over as bytes: it comes from somebody else."""
MAX_PIXELS = 25_000_000
"""Most pixels of an image that is handed over as bytes, checked before any pixel is decoded."""
MAX_FILE_PIXELS = 178_956_970
"""Most pixels of an image in a file of one's own: what Pillow itself decodes, half a GiB in RGB."""
MAX_FILE_BYTES = 2**30
"""Most bytes of such a file: so many pixels in RGB, uncompressed, have half of that."""
MAX_SECONDS, MAX_FILE_SECONDS = 4.0, 60.0
"""Most of a processor's time for an image that is handed over as bytes, and for one in a file of one's own.

What the limits of pixels allow takes a quarter of it, but 20 MiB of a progressive JPEG can ask for an hour and a half.
"""
SCANS_AT_ONCE = 2048
"""Bytes of a progressive JPEG after which the clock is looked at: each scan, of 60 bytes or more, visits all pixels."""
NOTES = "read"
"""Key of a picture's `info` with what was done to it, in words."""
WORDS = {
    "empty": "cannot be read ({}); give a PNG or JPEG",
    "format": "cannot be read ({}); remove or replace it",
    "damaged": "cannot be read ({}); remove or replace it",
    "bytes": "is too large ({}); save it smaller",
    "pixels": "is too large ({}); scale it down",
    "values": "has {}; save it with 8 or 16 bits",
    "seconds": "takes too long to decode ({}); save it again as PNG or as plain JPEG",
}
"""What can be wrong with an image, and what is said of it."""


class ImageError(InputError):
    """An image that cannot be read."""

    kind: str = ""
    """What is wrong with it: a key of `WORDS`."""
    found: str = ""
    """What was found, in words that fit into a sentence."""


def read_image(source: str | Path | bytes) -> Image.Image:
    """An image file, or the bytes of one, as an upright picture: RGB, or RGBA where parts may be transparent.

    A photo that is stored turned is turned as its EXIF orientation says. Grey of 16 bits (PNG, TIFF, PGM) is scaled by
    the range of its type, 65535 to white. Animations give their first frame; palettes, CMYK and black and white become
    RGB. What lies behind transparent parts is decided where the model's channels are known, in `flatten`. What was done
    is in the picture: `how_read` says it.

    Raises ImageError, a ValueError that names the file and the next step: on what is no image of `FORMATS`, is broken
    or cut off, is larger than `MAX_FILE_PIXELS` or `MAX_FILE_BYTES`, takes `MAX_FILE_SECONDS` (bytes: `MAX_PIXELS`,
    `MAX_BYTES`, `MAX_SECONDS`), or has 32-bit values, which have no range to scale by.
    """
    name, limit = ("image", MAX_PIXELS) if isinstance(source, bytes) else (f"image {source}", MAX_FILE_PIXELS)
    try:
        with closing(_stream(source, name)) as stream:
            return _decoded(stream, name, limit)
    except OutOfPatience as error:
        raise _error(name, "seconds", str(error)) from error


def _stream(source: str | Path | bytes, name: str) -> PatientBytes | PatientFile:
    """What an image is read from, if it is no larger than may be; ImageError on what is no file."""
    if isinstance(source, bytes):
        if not source:
            raise _error(name, "empty", "no bytes")
        _check_bytes(name, len(source), MAX_BYTES)
        return PatientBytes(source, MAX_SECONDS)
    try:
        about = Path(source).stat()
        if not stat.S_ISREG(about.st_mode) and not stat.S_ISDIR(about.st_mode):  # a pipe would be waited for
            raise _error(name, "format", "it is no file")
        _check_bytes(name, about.st_size, MAX_FILE_BYTES)
        return PatientFile(open(source, "rb", buffering=0), MAX_FILE_SECONDS)
    except OSError as error:
        raise _error(name, "format", str(error)) from error


def _check_bytes(name: str, count: int, most: int) -> None:
    if count > most:
        raise _error(name, "bytes", f"{count / 2**20:.0f} MiB; up to {most // 2**20} MiB are read")


def _decoded(stream: PatientBytes | PatientFile, name: str, limit: int) -> Image.Image:
    """The picture in a stream; ImageError as `read_image`."""
    try:
        with warnings.catch_warnings():
            # Of half as many pixels as Pillow refuses, which are counted below, and of metadata that is broken.
            warnings.simplefilter("ignore")
            opened = Image.open(stream, formats=FORMATS)
    except OutOfPatience:
        raise
    except Image.DecompressionBombError as error:
        raise _error(name, "pixels", f"more than {limit // 10**6} million pixels") from error
    except Exception as error:  # whatever a decoder raises on bytes that it does not understand
        unknown = isinstance(error, UnidentifiedImageError)  # whose words for bytes are an address in memory
        raise _error(name, "format", "no image of a known format" if unknown else str(error)) from error
    with opened as image:
        if image.width * image.height > limit:
            size = f"{image.width} × {image.height} pixels; up to {limit // 10**6} million are read"
            raise _error(name, "pixels", size)
        if image.mode in ("I", "F") and image.format != "PPM":
            raise _error(name, "values", "32-bit values")
        if isinstance(image, ImageFile) and image.info.get("progressive"):
            image.decodermaxblock = SCANS_AT_ONCE
        try:
            image.load()
            done = _notes(image)
            _set_upright(image)
            picture = _in_colour(image, name)
            picture.info[NOTES] = done
            return picture
        except (ImageError, OutOfPatience):
            raise
        except Exception as error:  # as above
            raise _error(name, "damaged", str(error) or type(error).__name__) from error


def how_read(image: Image.Image) -> str:
    """What `read_image` did beyond decoding, in words for a line; empty where it did nothing."""
    return "; ".join(image.info.get(NOTES, ()))


def flatten(image: Image.Image, channels: int, *, invert: bool = False) -> Image.Image:
    """A picture of any mode without transparency: grey (L) for one channel, RGB for three.

    Transparent parts are laid on the background that a model of so many channels knows: white for colour, black for
    grey, as digits and clothes have it. With `invert`, which is for dark drawings on light paper, they are paper: laid
    on white before light and dark change places. Raises ValueError if `channels` is neither 1 nor 3.
    """
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3 for an image file, got {channels}; prepare images for such a model "
                         "yourself")  # fmt: skip
    if image.mode not in ("RGB", "RGBA") or image.has_transparency_data:
        image = _in_colour(image, "image")
    if image.mode == "RGBA":
        laid = Image.new("RGBA", image.size, "black" if channels == 1 and not invert else "white")
        laid.alpha_composite(image)
        image = laid.convert("RGB")
    if channels == 1:
        image = image.convert("L")
    return ImageOps.invert(image) if invert else image


def to_pixels(image: Image.Image | Tensor, channels: int, *, invert: bool = False) -> UInt8[Tensor, "c y x"]:
    """A picture, or pixels `c y x`, with the channels of a model: grey is repeated, colour becomes its luma.

    Pixels that have the channels already stay as they are, however many. Raises ValueError as `flatten` does.
    """
    if isinstance(image, Image.Image):
        return F.pil_to_tensor(flatten(image, channels, invert=invert))
    pixels = image
    if len(pixels) != channels:
        if {len(pixels), channels} != {1, 3}:
            raise ValueError(f"channels must be {len(pixels)} as the images have, or 1 or 3 of them, got {channels}")
        pixels = F.rgb_to_grayscale(pixels) if channels == 1 else F.grayscale_to_rgb(pixels)
    return F.invert(pixels) if invert else pixels


def fit(
    image: Image.Image | Tensor,
    size: tuple[int, int],
    channels: int,
    *,
    crop: float = 1.0,
    interpolation: str = "bilinear",
    invert: bool = False,
) -> UInt8[Tensor, "c y x"]:
    """A picture, or pixels `c y x`, as the pixels of a model's input of `size` (rows, columns).

    `crop` is the fraction of the resized picture that a centre crop keeps, by side: the shorter side is resized to
    size / crop and the middle cut out (an oblong `size` is resized by both sides). 1 squeezes the whole picture to
    `size`. `interpolation` is a value of torchvision's `InterpolationMode`; `invert` as in `flatten`.
    """
    pixels, mode = to_pixels(image, channels, invert=invert), F.InterpolationMode(interpolation)
    if crop == 1:
        return F.resize(pixels, list(size), mode, antialias=True)
    sides = [int(side / crop + 1e-6) for side in size]  # 1e-6: 252 / 0.9 is 280
    resized = F.resize(pixels, sides[:1] if size[0] == size[1] else sides, mode, antialias=True)
    return F.center_crop(resized, list(size))


def _notes(image: Image.Image) -> list[str]:
    """What is about to be done to a decoded image, in words."""
    turn, frames, done = 1, getattr(image, "n_frames", 1), []
    with warnings.catch_warnings(), suppress(Exception):  # of broken metadata: then it is not turned
        warnings.simplefilter("ignore")
        turn = image.getexif().get(ORIENTATION, 1)
    if turn in range(2, 9):
        done.append(f"turned upright (EXIF orientation {turn})")
    if frames > 1:
        done.append(f"first of {frames} frames")
    if image.mode.startswith("I"):
        done.append("16 bits scaled to 8")
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        done.append(f"{image.mode} turned to RGB")
    if image.has_transparency_data:
        done.append("transparent parts laid on white for a model of colours, on black for one of grey")
    return done


def _in_colour(image: Image.Image, name: str) -> Image.Image:
    """The picture in RGB or RGBA; ImageError where its values have no place there."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        # Pillow gives a 16-bit PGM as 32-bit integers from 0 to 65535.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise _error(name, "values", "32-bit values")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _set_upright(image: Image.Image) -> None:
    """Turn a picture as its EXIF orientation says; one whose EXIF data cannot be read stays as it is stored."""
    with warnings.catch_warnings(), suppress(Exception):  # broken metadata is no reason to refuse the pixels
        warnings.simplefilter("ignore")
        ImageOps.exif_transpose(image, in_place=True)


def _error(name: str, kind: str, found: str) -> ImageError:
    error = ImageError(f"{name} {WORDS[kind].format(found)}")
    error.kind, error.found = kind, found
    return error
