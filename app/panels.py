"""Parts of pages that take checkpoints and lay out views: comparison, inspection of one offset, locality."""

from collections.abc import Sequence

import numpy as np
import streamlit as st

from app import images, loaders
from app.loaders import Entry
from app.runs import Run
from app.views import keys as key_views
from app.views import locality, stacks
from app.views.mosaic import Cell, answering, cell_text, enlarged, mosaic
from app.views.stack import MapStack, nearest_frame, shared_bound, shared_frame
from app.widgets import chart, clickable, clicked

IMAGES = 256
"""Test images that relative attention is averaged over, as in the paper."""
HEADS_SHOWN = 16
"""Heads drawn at once, as in the paper's figures."""
PICTURE = 184
"""Sides of an image and what stands beside it, in pixels: three fit half a page."""
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
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        scale = st.segmented_control(
            "Colour scale",
            [SHARED, EACH_MODEL, EACH_HEAD],
            default=SHARED,
            required=True,
            key="scale",
            bind="query-params",
        )
        if all(stack.by_offset for stack in pair):
            frame = st.segmented_control(
                "Offsets", [NEAR, ALL], default=NEAR, required=True, key="offsets", bind="query-params"
            )
            sides = (shared_frame if frame == ALL else nearest_frame)(*pair)
            pair = [stack.framed(*sides) for stack in pair]
        start = head_window(*pair)
    common = shared_bound(*pair)
    bounds = {SHARED: [common, common], EACH_MODEL: [shared_bound(stack) for stack in pair]}.get(scale, [None, None])
    weaker, stronger = sorted(pair, key=shared_bound)
    if scale == SHARED and common > PALE * shared_bound(weaker):
        st.caption(f"{weaker.label} is pale as {stronger.label} is stronger by far: “{EACH_MODEL}” shows both.")
    columns = st.columns(2, gap="medium")
    for column, stack, bound, key in zip(columns, pair, bounds, ("left", "right"), strict=True):
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
    step = max(answering(stack.select_heads(start, HEADS_SHOWN)) for stack in pair)
    st.caption(
        "Values beyond the end of the scale have its full colour; hover or click to read them."
        + (f" Every {step}. row and column answers here, every one in the enlarged map." if step > 1 else "")
    )
    inspect(pair, bounds)
    distances(pair)


def inspect(shown: list[MapStack], bounds: Sequence[float | None] = (None,)) -> None:
    """The map of the clicked layer and head enlarged in each stack, with the value at the clicked place."""
    cells = [chosen_cell(stack) for stack in shown]
    if len({stack.by_offset for stack in shown}) == 1:
        cells = cells[:1] * len(shown)
    st.subheader(cell_text(shown[0], cells[0]), anchor=False)
    columns = st.columns(len(shown), gap="medium")
    for i, (column, stack, cell, bound) in enumerate(zip(columns, shown, cells, bounds, strict=True)):
        with column:
            near = within(cell, stack)
            place = stack.cell(cell.y, cell.x)
            value = stack.values[near.layer, near.head][place] if place is not None else np.nan
            text = number(value) if np.isfinite(value) else "none: it has no such offset"
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
    st.caption(
        "Mean distance from the target, weighted by |exp(w) − 1| on the window for AFT, by the attention itself for a "
        "ViT: compare heads and layers of one model, or AFT models of one window."
    )
    chart(locality.by_layer(series, name="mean distance (patches)"), "distance", "Mean distance by layer")


def chosen_cell(stack: MapStack, parameter: str | None = None) -> Cell:
    """The cell in the URL, its layer and head held inside the stack; the first head's strongest where there is none.

    There is none before any click, and where the offset or position lies outside the stack's frame.
    """
    cell = clicked(parameter or parameter_of(stack))
    return strongest(stack) if cell is None or stack.cell(cell.y, cell.x) is None else within(cell, stack)


def parameter_of(stack: MapStack) -> str:
    """The URL's name for a stack's cell: offsets and positions are told apart."""
    return "cell" if stack.by_offset else "place"


def keys(entry: Entry, picture: images.Chosen, side: str) -> None:
    """The image, its attribution and prediction for one model, and the keys of every layer and head."""
    image, pixels, truth = images.for_model(picture, entry)
    loaded = loaders.checkpoint(str(entry.path), entry.revision)
    result = loaders.keys_of(str(entry.path), entry.revision, image)
    classes = [str(name) for name in loaded.data["classes"]]
    with st.container(horizontal=True, gap="small"):
        title = "Image" if truth is None else f"Image of class {_name(classes, truth)}"
        chart(key_views.picture(pixels, title, height=PICTURE), f"image-{side}", "The image", width=PICTURE)
        figure = key_views.attribution(result.attribution, "Attribution", height=PICTURE)
        chart(figure, f"attribution-{side}", "Which pixels speak for the prediction", width=PICTURE)
        figure = key_views.probabilities(result.probabilities, classes, height=PICTURE)
        chart(figure, f"probabilities-{side}", "Most probable classes", width=PICTURE)
    st.caption(
        f"Attribution: integrated gradients of the logit of {_name(classes, result.prediction)} from a grey image; red "
        "pixels speak for it, blue ones against it."
    )
    stack = stacks.of_keys(result, entry.label)
    cell = chosen_cell(stack, f"key-{side}")
    figure = mosaic(stack.select_heads(0, HEADS_SHOWN), marked=cell)
    clickable(figure, f"keys-{side}", f"Keys of {entry.label}", f"key-{side}")
    value = stack.values[cell.layer, cell.head, cell.y, cell.x]
    st.markdown(f"{cell_text(stack, cell)}: {stack.unit} = **{number(value)}**")
    figure = enlarged(stack, cell.layer, cell.head, marked=(cell.y, cell.x), height=280)
    clickable(figure, f"key-map-{side}", f"Keys of layer {cell.layer}, head {cell.head}", f"key-{side}", width=370)


def snapshots(run: Run) -> None:
    """The position biases as they were after an epoch, coloured alike at every epoch; nothing if none were kept."""
    kept = stacks.of_snapshots(loaders.snapshots(str(run.path), run.written), run.label, single=run.single)
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


def number(value: float) -> str:
    """A value as it is shown; zero without a sign."""
    return f"{value + 0.0:.4g}"


def within(cell: Cell, stack: MapStack) -> Cell:
    """The cell with its layer and head held inside the stack (a link may come from a larger model)."""
    layer = min(max(cell.layer, 0), stack.layers - 1)
    return Cell(layer, min(max(cell.head, 0), stack.heads - 1), cell.y, cell.x)


def _name(classes: list[str], index: int) -> str:
    """A class's name, or its number where the checkpoint has no name for it."""
    return classes[index] if index < len(classes) else str(index)
