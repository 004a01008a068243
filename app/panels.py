"""Parts of pages that take checkpoints and lay out views: comparison, inspection of one offset, locality."""

import numpy as np
import streamlit as st

from app import images, loaders
from app.loaders import Entry
from app.views import keys as key_views
from app.views import locality, stacks
from app.views.mosaic import Cell, cell_text, enlarged, mosaic
from app.views.stack import MapStack, nearest_frame, shared_bound, shared_frame
from app.widgets import chart, clickable, clicked

IMAGES = 256
"""Test images that relative attention is averaged over, as in the paper."""
HEADS_SHOWN = 16
"""Heads drawn at once, as in the paper's figures."""
PICTURE = 230
"""Height of an image and what stands beside it, in pixels."""
NEAR, ALL = "In both", "All"
SHARED, EACH_MODEL, EACH_HEAD = "Shared", "Each model", "Each head"


def stack_of(entry: Entry, images: int = IMAGES) -> MapStack:
    """Where a checkpoint looks, in one unit for every mixer. Raises ValueError for a model without any bias."""
    path, version = str(entry.path), entry.revision
    if entry.mixer == "attention":
        maps = loaders.relative_maps(path, version, images)
        return stacks.of_attention(maps, entry.label, loaders.positions(entry))
    if entry.mixer == "aft_simple":
        raise ValueError(f"{entry.label} is AFT-simple: it has no position bias to show. Pick another checkpoint.")
    return stacks.of_bias(loaders.bias_maps(path, version), entry.label)


def compare(first: Entry, second: Entry) -> None:
    """Two mosaics on one frame and scale, the clicked offset enlarged in both, and locality by layer."""
    pair = [stack_of(first), stack_of(second)]
    bar, near, heads = st.columns([2, 2, 3], vertical_alignment="bottom")
    with bar:
        scale = st.segmented_control(
            "Colour scale",
            [SHARED, EACH_MODEL, EACH_HEAD],
            default=SHARED,
            required=True,
            key="scale",
            bind="query-params",
        )
    with near:
        frame = st.segmented_control(
            "Offsets", [NEAR, ALL], default=NEAR, required=True, key="offsets", bind="query-params"
        )
    sides = (shared_frame if frame == ALL else nearest_frame)(*pair)
    pair = [stack.framed(*sides) for stack in pair]
    with heads:
        start = head_window(*pair)
    cell = held(clicked(), pair[0])
    both = shared_bound(*pair)
    for column, stack, key in zip(st.columns(2, gap="medium"), pair, ("left", "right"), strict=True):
        with column:
            shown = stack.select_heads(min(start, max(0, stack.heads - 1)), HEADS_SHOWN)
            figure = mosaic(
                shown,
                bound=both if scale == SHARED else None,
                per_head=scale == EACH_HEAD,
                first_head=start,
                marked=cell,
            )
            clickable(figure, f"mosaic-{key}", f"{stack.unit} of {stack.label} by layer and head")
    inspect(pair, cell, bound=both if scale == SHARED else None)
    st.subheader("How far each layer looks", anchor=False)
    series = [(f"{stack.label}", stacks.mean_distance(stack)) for stack in pair]
    chart(
        locality.by_layer(series, name="mean distance (patches)"), "distance", "Mean distance of the offsets by layer"
    )


def inspect(shown: list[MapStack], cell: Cell, *, bound: float | None = None) -> None:
    """The map of the clicked layer and head enlarged in each stack, with the value at the clicked place."""
    st.subheader(cell_text(shown[0], cell), anchor=False)
    for i, (column, stack) in enumerate(zip(st.columns(len(shown), gap="medium"), shown, strict=True)):
        with column:
            near = within(cell, stack)
            place = stack.cell(cell.y, cell.x)
            value = stack.values[near.layer, near.head][place] if place is not None else np.nan
            text = f"{value:.4g}" if np.isfinite(value) else "none: outside its window"
            instead = "" if near[:2] == cell[:2] else f" (its layer {near.layer}, head {near.head})"
            st.markdown(f"**{stack.label}**{instead}: {stack.unit} = **{text}**")
            clickable(
                enlarged(stack, near.layer, near.head, bound=bound, marked=(cell.y, cell.x)),
                f"enlarged-{i}",
                f"Map of {stack.label}, layer {near.layer}, head {near.head}",
                width=430,
            )


def keys(entry: Entry, picture: images.Chosen, side: str) -> None:
    """The image, its attribution and prediction for one model, and the keys of every layer and head."""
    image, pixels, truth = images.for_model(picture, entry)
    loaded = loaders.checkpoint(str(entry.path), entry.revision)
    result = loaders.keys_of(str(entry.path), entry.revision, image)
    classes = [str(name) for name in loaded.data["classes"]]
    shown, why, what = st.columns(3)
    with shown:
        title = "Image" if truth is None else f"Image of class {_name(classes, truth)}"
        chart(key_views.picture(pixels, title, height=PICTURE), f"image-{side}", "The image")
    with why:
        figure = key_views.attribution(result.attribution, "Attribution", height=PICTURE)
        chart(figure, f"attribution-{side}", "Which pixels speak for the prediction")
    with what:
        figure = key_views.probabilities(result.probabilities, classes, height=PICTURE)
        chart(figure, f"probabilities-{side}", "Most probable classes")
    stack = stacks.of_keys(result, entry.label)
    clickable(mosaic(stack.select_heads(0, HEADS_SHOWN)), f"keys-{side}", f"Keys of {entry.label}", f"key-{side}")
    cell = held(clicked(f"key-{side}"), stack)
    st.markdown(f"**{cell_text(stack, cell)}**")
    figure = enlarged(stack, cell.layer, cell.head, marked=(cell.y, cell.x), height=280)
    clickable(figure, f"key-map-{side}", f"Keys of layer {cell.layer}, head {cell.head}", f"key-{side}", width=370)


def head_window(*shown: MapStack) -> int:
    """First head drawn: a slider where a model has more than are drawn at once, else 0."""
    most = max(stack.heads for stack in shown)
    if most <= HEADS_SHOWN:
        return 0
    steps = list(range(0, most, HEADS_SHOWN))
    return int(
        st.select_slider(
            "Heads",
            steps,
            format_func=lambda first: f"{first} to {min(first + HEADS_SHOWN, most) - 1} of {most}",
            key="head",
        )
    )


def strongest(stack: MapStack) -> Cell:
    """The cell of layer 0, head 0 with the largest |value|: what is enlarged before any click."""
    size = np.abs(np.nan_to_num(stack.values[0, 0]))
    row, column = np.unravel_index(int(size.argmax()), size.shape)
    return Cell(0, 0, *stack.coordinates(int(row), int(column)))


def held(cell: Cell | None, stack: MapStack) -> Cell:
    """The clicked cell held inside the stack, or the strongest one of its first head before any click."""
    return within(cell or strongest(stack), stack)


def within(cell: Cell, stack: MapStack) -> Cell:
    """The cell with its layer and head held inside the stack (a link may come from a larger model)."""
    layer = min(max(cell.layer, 0), stack.layers - 1)
    return Cell(layer, min(max(cell.head, 0), stack.heads - 1), cell.y, cell.x)


def _name(classes: list[str], index: int) -> str:
    """A class's name, or its number where the checkpoint has no name for it."""
    return classes[index] if index < len(classes) else str(index)
