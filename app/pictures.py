"""Choosing the image that pages look at: a test image by number or an upload, answered in words if it is unfit."""

from typing import Any

import streamlit as st

from app import loaders, state
from app.limits import MAX_BYTES
from app.models import Entry
from app.words import plain
from app.workspace import UPLOAD

SAMPLE = "sample"
KINDS = {SAMPLE: "Test image", UPLOAD: "Upload"}
KEPT = "kept upload"
"""Session's key of the last upload, (name, bytes): the uploader forgets it while it is not shown."""


def data_for(entry: Entry) -> str:
    """The data set whose images a model looks at: its own, or for another library's ViT the chosen one."""
    return "" if entry.data else str(state.current()["data"])


def choose(*entries: Entry) -> dict[str, Any] | None:
    """Widgets for the image, one that all the models' data sets have; None until a readable upload is there."""
    space = state.current()
    now = UPLOAD if space["image"] == UPLOAD else SAMPLE
    found = {} if now == UPLOAD else {name["name"]: name for name in (loaders.samples(e, data_for(e)) for e in entries)}
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        key = "kind of image"
        st.session_state[key] = now
        st.segmented_control(
            "Image", list(KINDS), format_func=KINDS.__getitem__, required=True, key=key,
            on_change=lambda: state.step(image=UPLOAD if st.session_state[key] == UPLOAD else "0"),
        )  # fmt: skip
        if now == SAMPLE:
            most = min(one["count"] for one in found.values()) - 1
            if int(space["image"]) > most:
                state.correct(f"image must be 0 to {most}, the address says {space['image']}", image=str(most))
            box = state.widget_key("image")
            st.session_state[box] = int(state.current()["image"])
            st.number_input(
                "Number", 0, most, step=1, help=f"Of the test images, 0 to {most}.", **state.bound("image", str)
            )
    for one in found.values():
        if one["note"]:
            st.caption(plain(one["note"]))
    return {"sample": int(state.current()["image"])} if now == SAMPLE else _upload()


def _upload() -> dict[str, Any] | None:
    file = st.file_uploader(
        "PNG, JPEG, WebP, BMP, GIF or TIFF", max_upload_size=MAX_BYTES // 2**20, key="file",
        on_change=lambda: st.session_state.pop(KEPT, None),
    )  # fmt: skip
    invert = state.flag("Invert (a dark drawing on light paper)", "invert")
    if file is not None:
        st.session_state[KEPT] = (file.name, file.getvalue())
    elif KEPT in st.session_state:
        st.caption(plain(f"Still {st.session_state[KEPT][0]}, until another file is chosen."))
    if KEPT not in st.session_state:
        return None
    content = st.session_state[KEPT][1]
    try:
        if done := loaders.upload_words(content):
            st.caption(plain(f"As read: {done}."))
    except ValueError as error:
        st.error(plain(error), icon=":material/broken_image:")
        return None
    return {"upload": content, "invert": invert}
