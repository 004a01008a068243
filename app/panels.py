"""Parts of pages that take checkpoints and lay out views: comparison, inspection of one offset, locality."""

import numpy as np
import streamlit as st

from app import images, loaders
from app.loaders import Entry
from app.runs import Run
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
PALE = 5.0
"""How many times stronger one model is when the other can hardly be seen on a shared scale."""
NEAR, ALL = "In both", "All"
SHARED, EACH_MODEL, EACH_HEAD = "Shared", "Each model", "Each head"


def stack_of(entry: Entry, images: int = IMAGES) -> MapStack:
    """Where a checkpoint looks, in one unit for every mixer. Raises ValueError for a model without any bias."""
    path, version = str(entry.path), entry.revision
    if entry.mixer == "attention":
        maps = loaders.relative_maps(path, version, images)
        return stacks.of_attention(maps, entry.label)
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
    if all(stack.by_offset for stack in pair):
        with near:
            frame = st.segmented_control(
                "Offsets", [NEAR, ALL], default=NEAR, required=True, key="offsets", bind="query-params"
            )
        sides = (shared_frame if frame == ALL else nearest_frame)(*pair)
        pair = [stack.framed(*sides) for stack in pair]
    with heads:
        start = head_window(*pair)
    bound = shared_bound(*pair) if scale == SHARED else None
    weaker, stronger = sorted(pair, key=shared_bound)
    if bound is not None and bound > PALE * shared_bound(weaker):
        st.caption(f"{weaker.label} is pale as {stronger.label} is stronger by far: “{EACH_MODEL}” shows both.")
    for column, stack, key in zip(st.columns(2, gap="medium"), pair, ("left", "right"), strict=True):
        with column:
            from_head = start if start < stack.heads else 0
            figure = mosaic(
                stack.select_heads(from_head, HEADS_SHOWN),
                bound=bound,
                per_head=scale == EACH_HEAD,
                first_head=from_head,
                marked=chosen_cell(stack),
            )
            name = f"{stack.unit} of {stack.label} by layer and {stack.column}"
            clickable(figure, f"mosaic-{key}", name, parameter_of(stack))
    st.caption("Values beyond the end of the scale have its full colour; hover or click to read them.")
    inspect(pair, bound=bound)
    distances(pair)


def inspect(shown: list[MapStack], *, bound: float | None = None) -> None:
    """The map of the clicked layer and head enlarged in each stack, with the value at the clicked place."""
    cells = [chosen_cell(stack) for stack in shown]
    if len({stack.by_offset for stack in shown}) == 1:
        cells = cells[:1] * len(shown)
    st.subheader(cell_text(shown[0], cells[0]), anchor=False)
    for i, (column, stack, cell) in enumerate(zip(st.columns(len(shown), gap="medium"), shown, cells, strict=True)):
        with column:
            near = within(cell, stack)
            place = stack.cell(cell.y, cell.x)
            value = stack.values[near.layer, near.head][place] if place is not None else np.nan
            text = f"{value:.4g}" if np.isfinite(value) else "none: outside its window"
            instead = "" if near == cells[0] else f" ({cell_text(stack, near)})"
            st.markdown(f"**{stack.label}**{instead}: {stack.unit} = **{text}**")
            clickable(
                enlarged(stack, near.layer, near.head, bound=bound, marked=(cell.y, cell.x)),
                f"enlarged-{i}",
                f"Map of {stack.label}, layer {near.layer}, {stack.column} {near.head}",
                parameter_of(stack),
                width=430,
            )


def distances(shown: list[MapStack]) -> None:
    """Mean distance by layer of the stacks that have one."""
    series = [(stack.label, stack.distance) for stack in shown if stack.distance is not None]
    st.subheader("How far each layer looks", anchor=False)
    st.caption("Mean distance from the target: of |exp(w) − 1| for AFT, of the attention itself for a ViT.")
    chart(locality.by_layer(series, name="mean distance (patches)"), "distance", "Mean distance by layer")


def chosen_cell(stack: MapStack) -> Cell:
    """The cell in the URL held inside the stack, or the strongest one of its first head before any click."""
    return within(clicked(parameter_of(stack)) or strongest(stack), stack)


def parameter_of(stack: MapStack) -> str:
    """The URL's name for a stack's cell: offsets and positions are told apart."""
    return "cell" if stack.by_offset else "place"


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
    cell = within(clicked(f"key-{side}") or strongest(stack), stack)
    st.markdown(f"**{cell_text(stack, cell)}**")
    figure = enlarged(stack, cell.layer, cell.head, marked=(cell.y, cell.x), height=280)
    clickable(figure, f"key-map-{side}", f"Keys of layer {cell.layer}, head {cell.head}", f"key-{side}", width=370)


def snapshots(run: Run) -> None:
    """The position biases as they were after an epoch, coloured alike at every epoch; nothing if none were kept."""
    kept = stacks.of_snapshots(loaders.snapshots(str(run.path), run.written), run.label)
    if len(kept) < 2:
        return
    st.subheader("How the position biases grew", anchor=False)
    epochs = sorted(kept)
    epoch = st.select_slider("After epoch", epochs, value=epochs[-1], key="epoch")
    figure = mosaic(kept[int(epoch)].select_heads(0, HEADS_SHOWN), bound=shared_bound(*kept.values()), width=1200)
    chart(figure, "snapshot", f"exp(w) − 1 of {run.label} after epoch {epoch}")


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


def within(cell: Cell, stack: MapStack) -> Cell:
    """The cell with its layer and head held inside the stack (a link may come from a larger model)."""
    layer = min(max(cell.layer, 0), stack.layers - 1)
    return Cell(layer, min(max(cell.head, 0), stack.heads - 1), cell.y, cell.x)


def _name(classes: list[str], index: int) -> str:
    """A class's name, or its number where the checkpoint has no name for it."""
    return classes[index] if index < len(classes) else str(index)
