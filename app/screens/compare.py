"""Compare: where two models look, side by side on one frame and one colour scale."""

import streamlit as st

from app import panels
from app.widgets import entries_or_stop, heading, in_words, pick

heading(
    "Compare",
    "Where each head looks: exp(w) − 1 for AFT, averaged attention for a ViT. Zero (pale) means no more than any "
    "other position. Click a cell to read its offset in both models.",
)
entries = entries_or_stop()
left, right = st.columns(2, gap="medium")
with left:
    first = pick("Left", "a", entries, prefer=("cifar10-conv", "digits-single"))
with right:
    second = pick("Right", "b", entries, prefer=("cifar10-vit", "digits-vit", "digits-entropy"))
with in_words():
    panels.compare(first, second)
