"""Keys: what each head reads in an image (the paper's Fig. 9 to 12), beside what the prediction rests on."""

import streamlit as st

from app import images, panels
from app.widgets import entries_or_stop, heading, in_words, pick

heading(
    "Keys",
    "The keys K of every head on an image, each less its mean: red positions are read more, blue ones less.",
)
entries = entries_or_stop("offset")
left, right = st.columns(2, gap="medium")
with left:
    first = pick("Left", "ka", entries, prefer=("cifar10-conv", "digits-single"))
with right:
    second = pick("Right", "kb", entries, prefer=("cifar10-entropy", "digits-entropy", "digits-conv"))
with in_words():
    picture = images.choose(first, second)
    if picture is not None:
        for column, entry, side in zip(st.columns(2, gap="medium"), (first, second), ("left", "right"), strict=True):
            with column, in_words():
                panels.keys(entry, picture, side)
