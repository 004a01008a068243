"""Turning an uploaded file into a model's input, or into words that say why it cannot be."""

import io
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

MAX_BYTES = 20 * 2**20
"""Largest upload, in bytes."""
MAX_PIXELS = 40_000_000
"""Largest image, in pixels, checked before any pixel is decoded."""
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")


class UploadError(ValueError):
    """An upload that cannot be shown, with the reason and what to do in words for the user."""


def read_image(data: bytes) -> Image.Image:
    """Decode an upload upright, its mode kept, and its first frame if it has several.

    Raises UploadError if it is empty, no image, of another format, larger than MAX_BYTES or MAX_PIXELS, or cut off.
    """
    if not data:
        raise UploadError("The file is empty. Upload a PNG or JPEG image.")
    if len(data) > MAX_BYTES:
        size, limit = len(data) / 2**20, MAX_BYTES // 2**20
        raise UploadError(f"The file has {size:.0f} MiB; up to {limit} MiB are read. Save it smaller.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UploadError(_too_large("far more")) from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise UploadError("The file is not an image that can be read. Upload a PNG, JPEG, WebP or TIFF.") from error
    if image.width * image.height > MAX_PIXELS:
        raise UploadError(_too_large(f"{image.width} × {image.height}"))
    try:
        image.load()
        return ImageOps.exif_transpose(image)
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise UploadError("The image is damaged or cut off. Export it again and upload the new file.") from error


def fit_image(image: Image.Image, size: int, channels: int, *, invert: bool = False) -> Image.Image:
    """The image as the model's training images are: square by centre crop, `size` pixels, grey or RGB.

    Transparent parts are drawn on white for RGB and on black for grey (the background of digits and clothes).
    Raises UploadError if `channels` is neither 1 nor 3.
    """
    if channels not in (1, 3):
        raise UploadError(f"The model takes {channels} channels; an image file has 1 or 3.")
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, np.float64)
        low, high = float(values.min()), float(values.max())
        image = Image.fromarray(np.uint8(255 * (values - low) / max(high - low, 1e-9)))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.new("RGBA", layer.size, "white" if channels == 3 else "black")
        image.alpha_composite(layer)
    image = image.convert("L" if channels == 1 else "RGB")
    image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    return ImageOps.invert(image) if invert else image


def to_tensor(image: Image.Image, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Pixels 0..255 to the model's normalised input, shape `c y x`."""
    pixels = torch.from_numpy(np.array(image, np.float32)) / 255
    pixels = pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.permute(2, 0, 1)
    return (pixels - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)


def _too_large(size: str) -> str:
    """Words for an image with too many pixels."""
    return f"The image has {size} pixels; up to {MAX_PIXELS // 10**6} million are read. Scale it down first."
