"""Attention: a ViT's attention averaged over images and targets, by offset (the paper's Fig. 1, left, and 5)."""

import streamlit as st

from analyses.maps.mosaic import mosaic
from app import loaders, panels
from app.widgets import clickable, entries_or_stop, heading, in_words, pick

heading(
    "Attention",
    "A ViT's attention by relative offset, averaged over test images and target positions, class token left out.",
)
entries = entries_or_stop("attention")
left, middle, right = st.columns([2, 1, 1], gap="medium")
with left:
    entry = pick("Model", "vit", entries, prefer=("cifar10-vit", "digits-vit"))
with middle:
    images = st.selectbox("Test images", [64, 256, 1024], index=1, key="images", bind="query-params")
with right:
    unit = st.selectbox("Value", ["Excess over uniform", "Attention"], key="unit", bind="query-params")
with in_words():
    result = loaders.relative_maps(str(entry.path), entry.revision, int(images))
    maps = result.head_maps(entry.label, excess=unit != "Attention")
    start = panels.head_window(maps)
    wide, narrow = st.columns([3, 2], gap="medium")
    with wide:
        figure = mosaic(maps.head_window(start), marked=panels.chosen_cell(maps), width=820)
        clickable(figure, "mosaic-attention", f"Relative attention of {entry.label} by layer and head")
        positions = result.grid[0] * result.grid[1]
        uniform = f"1/{positions} = {1 / positions:.2g}" if unit == "Attention" else "0"
        st.caption(f"Averaged over {result.images} images; uniform attention would be {uniform} everywhere.")
    with narrow:
        panels.inspect([maps])
    panels.distances([maps])
    st.caption(f"Uniform attention lies {result.uniform_distance:.2f} patches from its target on average.")
