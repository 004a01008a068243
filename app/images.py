"""Choosing the image that pages look at: a test sample by number or an upload, answered in words if it is unfit."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st
import torch

from app import loaders
from app.loaders import Entry
from app.uploads import MAX_BYTES, UploadError, fit_image, read_image, to_tensor

SAMPLE, UPLOAD = "Test sample", "Upload"


@dataclass(frozen=True)
class Chosen:
    """An image from a data set or from the user."""

    data: bytes | None
    """The uploaded file; None for a sample."""
    index: int
    """Number of the test sample."""
    invert: bool


def choose(entry: Entry) -> Chosen | None:
    """Widgets for the image; None until an upload is there or if it cannot be read."""
    source, what = st.columns([1, 3], gap="medium", vertical_alignment="bottom")
    with source:
        kind = st.segmented_control(
            "Image", [SAMPLE, UPLOAD], default=SAMPLE, required=True, key="image", bind="query-params"
        )
    with what:
        if kind == SAMPLE:
            images = loaders.data_of(str(entry.path), entry.revision)
            index = st.slider("Number", 0, len(images.test) - 1, 0, key="i", bind="query-params")
            if images.train is images.test:
                st.caption(f"{images.name} is not here: {images.split}.")
            return Chosen(None, int(index), False)
        file = st.file_uploader("PNG, JPEG, WebP, BMP, GIF or TIFF", max_upload_size=MAX_BYTES // 2**20, key="file")
        invert = st.toggle("Invert (a dark drawing on light paper)", key="invert", bind="query-params")
    if file is None:
        return None
    try:
        read_image(file.getvalue())
    except UploadError as error:
        st.error(str(error), icon=":material/broken_image:")
        return None
    return Chosen(file.getvalue(), 0, bool(invert))


def for_model(chosen: Chosen, entry: Entry) -> tuple[np.ndarray, np.ndarray, int | None]:
    """The model's input `c y x`, the same as a picture in 0..1 (`y x` or `y x c`), and the true class if known."""
    record: dict[str, Any] = loaders.checkpoint(str(entry.path), entry.revision).data
    if chosen.data is None:
        test: Any = loaders.data_of(str(entry.path), entry.revision).test
        image, label = test[min(chosen.index, len(test) - 1)]
        truth: int | None = int(label)
    else:
        fitted = fit_image(read_image(chosen.data), record["img_size"], record["in_chans"], invert=chosen.invert)
        image, truth = to_tensor(fitted, record["mean"], record["std"]), None
    pixels = image * torch.tensor(record["std"]).view(-1, 1, 1) + torch.tensor(record["mean"]).view(-1, 1, 1)
    picture = pixels.clamp(0, 1).permute(1, 2, 0).numpy()
    return image.numpy(), picture[..., 0] if picture.shape[2] == 1 else picture, truth
