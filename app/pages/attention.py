"""Attention: a ViT's attention averaged over images and targets, by offset (the paper's Fig. 1, left, and 5)."""

import streamlit as st

from app import loaders, panels
from app.views import locality, stacks
from app.views.mosaic import mosaic
from app.widgets import chart, clickable, clicked, entries_or_stop, heading, in_words, pick

heading(
    "Attention",
    "A ViT's attention by relative offset, averaged over test images and target positions, class token left out.",
)
entries = entries_or_stop(("attention",))
left, middle, right = st.columns([2, 1, 1], gap="medium")
with left:
    entry = pick("Model", "vit", entries, prefer=("digits-vit",))
with middle:
    images = st.selectbox("Test images", [64, 256, 1024], index=1, key="images", bind="query-params")
with right:
    unit = st.selectbox("Value", ["Excess over uniform", "Attention"], key="unit", bind="query-params")
with in_words():
    result = loaders.relative_maps(str(entry.path), entry.revision, int(images))
    positions = loaders.positions(entry) if unit != "Attention" else None
    stack = stacks.of_attention(result, entry.label, positions)
    start = panels.head_window(stack)
    cell = panels.held(clicked(), stack)
    wide, narrow = st.columns([3, 2], gap="medium")
    with wide:
        shown = stack.select_heads(start, panels.HEADS_SHOWN)
        figure = mosaic(shown, first_head=start, marked=cell, width=820)
        clickable(figure, "mosaic-attention", f"Relative attention of {entry.label} by layer and head")
        st.caption(f"Averaged over {result.images} images.")
    with narrow:
        panels.inspect([stack], cell)
    st.subheader("How far each layer looks", anchor=False)
    maps = stacks.of_attention(result, entry.label)
    chart(
        locality.by_layer([(entry.label, stacks.mean_distance(maps))], name="mean distance (patches)"),
        "distance",
        "Mean attention distance by layer",
    )
