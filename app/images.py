"""Choosing the image that pages look at: a test sample by number or an upload, answered in words if it is unfit."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st
import torch

from aft_lens.data import UNCOUNTED, how_read, model_input
from app import loaders
from app.loaders import Entry
from app.uploads import MAX_BYTES, UploadError, read_image
from app.widgets import plain

SAMPLE, UPLOAD = "Test sample", "Upload"
KEPT = "kept upload"
"""Session's key of the last upload, (name, bytes): the uploader forgets it while it is not shown."""


@dataclass(frozen=True)
class Chosen:
    """An image from a data set or from the user."""

    data: bytes | None
    """The uploaded file; None for a sample."""
    index: int
    """Number of the test sample."""
    invert: bool


def choose(*entries: Entry) -> Chosen | None:
    """Widgets for the image, one that all the models' data sets have; None until a readable upload is there."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        kind = st.segmented_control(
            "Image", [SAMPLE, UPLOAD], default=SAMPLE, required=True, key="image", bind="query-params"
        )
        what = st.container()
    with what:
        if kind == SAMPLE:
            sources = {data.name: data for data in (loaders.data_of(str(e.path), e.revision) for e in entries)}
            last = min(len(data.test) for data in sources.values()) - 1
            index = st.slider("Number", 0, last, 0, key="i", bind="query-params")
            for data in sources.values():
                if data.train is data.test:
                    st.caption(plain(f"{data.name} is not here: {data.split}."))
            return Chosen(None, int(index), False)
        file = st.file_uploader(
            "PNG, JPEG, WebP, BMP, GIF or TIFF",
            max_upload_size=MAX_BYTES // 2**20,
            key="file",
            on_change=lambda: st.session_state.pop(KEPT, None),
        )
        invert = st.toggle("Invert (a dark drawing on light paper)", key="invert", bind="query-params")
        if file is not None:
            st.session_state[KEPT] = (file.name, file.getvalue())
        elif KEPT in st.session_state:
            st.caption(plain(f"Still {st.session_state[KEPT][0]}, until another file is chosen."))
    if KEPT not in st.session_state:
        return None
    content = st.session_state[KEPT][1]
    try:
        if done := how_read(read_image(content)):
            st.caption(plain(f"As read: {done}."))
    except UploadError as error:
        st.error(plain(error), icon=":material/broken_image:")
        return None
    return Chosen(content, 0, bool(invert))


def for_model(chosen: Chosen, entry: Entry) -> tuple[np.ndarray, np.ndarray, int | None]:
    """The model's input `c y x`, the same as a picture in 0..1 (`y x` or `y x c`), and the true class if known."""
    record: dict[str, Any] = loaders.checkpoint(str(entry.path), entry.revision).data
    if chosen.data is None:
        test: Any = loaders.data_of(str(entry.path), entry.revision).test
        image, label = test[chosen.index]
        truth: int | None = None if int(label) == UNCOUNTED else int(label)
    else:
        image, truth = model_input(read_image(chosen.data), record, invert=chosen.invert), None
    pixels = image * torch.tensor(record["std"]).view(-1, 1, 1) + torch.tensor(record["mean"]).view(-1, 1, 1)
    picture = pixels.clamp(0, 1).permute(1, 2, 0).numpy()
    return image.numpy(), picture[..., 0] if picture.shape[2] == 1 else picture, truth
