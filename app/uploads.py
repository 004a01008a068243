"""What is the upload's own: limits and words for the user. Reading and fitting are those of `aft_lens.data`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from aft_lens.data import CENTRE, FILES_BY, ImageError, fit
from aft_lens.data import read_image as read_any
from aft_lens.data.image import MAX_BYTES
from aft_lens.later import later

if TYPE_CHECKING:
    from torchvision.transforms.v2 import functional as F
else:
    F = later("torchvision.transforms.v2.functional")

__all__ = ["MAX_BYTES", "UploadError", "fit_image", "read_image", "to_tensor"]

WORDS = {
    "empty": "The file is empty. Upload a PNG or JPEG image.",
    "bytes": "The file has {}. Save it smaller.",
    "format": "The file is not an image that can be read. Upload a PNG, JPEG, WebP or TIFF.",
    "pixels": "The image has {}. Scale it down first.",
    "damaged": "The image is damaged or cut off. Export it again and upload the new file.",
    "seconds": "The image takes {} to decode. Save it again as PNG or plain JPEG and upload the new file.",
    "values": "The image has {}. Save it with 8 or 16 bits and upload the new file.",
}
"""By kind of `ImageError`, what was found and what to do."""


class UploadError(ValueError):
    """An upload that cannot be shown, with the reason and what to do in words for the user."""


def read_image(data: bytes) -> Image.Image:
    """Decode an upload as any image file is read, to RGB or RGBA.

    Raises UploadError if it is empty, no image, of another format, larger than MAX_BYTES or the limit of pixels, cut
    off, too long to decode, or of 32-bit values.
    """
    try:
        return read_any(data)
    except ImageError as error:
        raise UploadError(WORDS[error.kind].format(error.found)) from error


def fit_image(
    image: Image.Image, size: int, channels: int, *, invert: bool = False, crop: bool | None = None
) -> Image.Image:
    """The picture that a model sees of an image: `size` pixels square, grey or RGB.

    With `crop` it is ImageNet's centre crop, as models trained on image files see it; without, the whole image is
    squeezed, as those trained on data in memory. None, where the data is not known: grey data is in memory, colour in
    files. For a model with its data record, `aft_lens.data.model_input` knows. Raises UploadError if `channels` is
    neither 1 nor 3, and on 32-bit values.
    """
    if channels not in (1, 3):
        raise UploadError(f"The model takes {channels} channels; an image file has 1 or 3.")
    cropped = channels == 3 if crop is None else crop
    kept, by = (CENTRE, FILES_BY) if cropped else (1.0, "bilinear")
    try:
        return F.to_pil_image(fit(image, (size, size), channels, crop=kept, interpolation=by, invert=invert))
    except ImageError as error:
        raise UploadError(WORDS[error.kind].format(error.found)) from error


def to_tensor(image: Image.Image, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Pixels 0..255 to the model's normalised input, shape `c y x`."""
    pixels = F.to_dtype(F.pil_to_tensor(image), torch.float32, scale=True)
    return F.normalize(pixels, list(mean), list(std))
