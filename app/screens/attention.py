"""Attention: a ViT's attention averaged over images and targets, by offset (the paper's Fig. 1, left, and 5)."""

import streamlit as st

from app import loaders, panels
from app.views import stacks
from app.views.mosaic import mosaic
from app.widgets import clickable, entries_or_stop, heading, in_words, pick

heading(
    "Attention",
    "A ViT's attention by relative offset, averaged over test images and target positions, class token left out.",
)
entries = entries_or_stop(("attention",))
left, middle, right = st.columns([2, 1, 1], gap="medium")
with left:
    entry = pick("Model", "vit", entries, prefer=("fashion-vit", "digits-vit"))
with middle:
    images = st.selectbox("Test images", [64, 256, 1024], index=1, key="images", bind="query-params")
with right:
    unit = st.selectbox("Value", ["Excess over uniform", "Attention"], key="unit", bind="query-params")
with in_words():
    result = loaders.relative_maps(str(entry.path), entry.revision, int(images))
    stack = stacks.of_attention(result, entry.label, excess=unit != "Attention")
    start = panels.head_window(stack)
    wide, narrow = st.columns([3, 2], gap="medium")
    with wide:
        shown = stack.select_heads(start, panels.HEADS_SHOWN)
        figure = mosaic(shown, first_head=start, marked=panels.chosen_cell(stack), width=820)
        clickable(figure, "mosaic-attention", f"Relative attention of {entry.label} by layer and head")
        positions = result.grid[0] * result.grid[1]
        uniform = f"1/{positions} = {1 / positions:.2g}" if unit == "Attention" else "0"
        st.caption(f"Averaged over {result.images} images; uniform attention would be {uniform} everywhere.")
    with narrow:
        panels.inspect([stack])
    panels.distances([stack])
    st.caption(f"Uniform attention lies {result.uniform_distance:.2f} patches from its target on average.")
