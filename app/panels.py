"""Parts of pages that take checkpoints and lay out views: comparison, inspection of one offset, locality."""

from collections.abc import Sequence

import numpy as np
import streamlit as st

from aft_lens.errors import markless
from analyses.maps import pixels
from analyses.maps.head_maps import MOST_HEADS, HeadMaps, nearest_frame, shared_bound, shared_frame
from analyses.maps.mosaic import Cell, answering, cell_text, enlarged, mosaic
from app import images, loaders
from app.loaders import Entry
from app.runs import Run
from app.views import keys as key_views
from app.views import locality
from app.views.snapshots import bias_by_epoch
from app.widgets import chart, clickable, clicked, plain

IMAGES = 256
"""Test images that relative attention is averaged over, as in the paper."""
PICTURE = 184
"""Sides of an image and what stands beside it, in pixels: three fit half a page."""
PALE = 5.0
"""How many times stronger one model is when the other can hardly be seen on a shared scale."""
NEAR, ALL = "In both", "All"
SHARED, EACH_MODEL, EACH_HEAD = "Shared", "Each model", "Each head"


def maps_of(entry: Entry, images: int = IMAGES) -> HeadMaps:
    """Where a checkpoint looks, in one unit for every mixer. Raises ValueError for a model without any bias."""
    path, version = str(entry.path), entry.revision
    if entry.traits.weights == "attention":
        return loaders.relative_maps(path, version, images).head_maps(entry.label)
    if not entry.traits.weights:
        kind = entry.traits.label
        raise ValueError(f"{entry.label} is {kind}: it has no position bias to show. Pick another checkpoint.")
    return loaders.bias_maps(path, version).head_maps(entry.label)


def compare(first: Entry, second: Entry) -> None:
    """Two mosaics on one frame and scale, the clicked offset enlarged in both, and locality by layer."""
    pair = [maps_of(first), maps_of(second)]
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        scale = st.segmented_control(
            "Colour scale",
            [SHARED, EACH_MODEL, EACH_HEAD],
            default=EACH_HEAD,
            required=True,
            key="scale",
            bind="query-params",
        )
        if all(maps.by_offset for maps in pair):
            frame = st.segmented_control(
                "Offsets", [NEAR, ALL], default=NEAR, required=True, key="offsets", bind="query-params"
            )
            sides = (shared_frame if frame == ALL else nearest_frame)(*pair)
            pair = [maps.framed(*sides) for maps in pair]
        start = head_window(*pair)
    common = shared_bound(*pair)
    bounds = {SHARED: [common, common], EACH_MODEL: [shared_bound(maps) for maps in pair]}.get(scale, [None, None])
    weaker, stronger = sorted(pair, key=shared_bound)
    if scale == SHARED and common > PALE * shared_bound(weaker):
        st.caption(
            f"{plain(weaker.label)} is pale as {plain(stronger.label)} is stronger by far: “{EACH_MODEL}” shows both."
        )
    for maps in pair:
        if maps.words:
            st.caption(plain(f"{maps.label}: {maps.words}."))
    columns = st.columns(2, gap="medium")
    for column, maps, bound, key in zip(columns, pair, bounds, ("left", "right"), strict=True):
        with column:
            from_head = start if start < maps.heads else 0
            figure = mosaic(
                maps.head_window(from_head), bound=bound, per_head=scale == EACH_HEAD, marked=chosen_cell(maps)
            )
            name = f"{maps.unit} of {maps.label} by layer and {maps.column}"
            clickable(figure, f"mosaic-{key}", name, parameter_of(maps))
    step = max(answering(maps.head_window(start)) for maps in pair)
    st.caption(
        "Values beyond the end of the scale have its full colour; hover or click to read them."
        + (f" Every {step}. row and column answers here, every one in the enlarged map." if step > 1 else "")
    )
    inspect(pair, bounds)
    distances(pair)


def inspect(shown: list[HeadMaps], bounds: Sequence[float | None] = (None,)) -> None:
    """The clicked layer and head's map of each model enlarged, with the value at the clicked place."""
    cells = [chosen_cell(maps) for maps in shown]
    if len({maps.by_offset for maps in shown}) == 1:
        cells = cells[:1] * len(shown)
    st.subheader(plain(cell_text(shown[0], cells[0])), anchor=False)
    columns = st.columns(len(shown), gap="medium")
    for i, (column, maps, cell, bound) in enumerate(zip(columns, shown, cells, bounds, strict=True)):
        with column:
            near = within(cell, maps)
            place = maps.cell(cell.y, cell.x)
            value = maps.values[near.layer, near.head][place] if place is not None else np.nan
            text = number(value) if np.isfinite(value) else "none: it has no such offset"
            instead = "" if near == cells[0] else f" ({cell_text(maps, near)})"
            st.markdown(f"**{plain(maps.label)}**{plain(instead)}: {plain(maps.unit)} = **{plain(text)}**")
            clickable(
                enlarged(maps, near.layer, near.head, bound=bound, marked=(cell.y, cell.x)),
                f"enlarged-{i}",
                f"Map of {maps.label}, layer {near.layer}, {maps.column} {near.head}",
                parameter_of(maps),
                width=430,
            )


def distances(shown: list[HeadMaps]) -> None:
    """Mean distance by layer of the models that have one."""
    series = [(maps.label, maps.distance) for maps in shown if maps.distance is not None]
    st.subheader("How far each layer looks", anchor=False)
    st.caption(
        "Mean distance from the target, weighted by |exp(w) − 1| on the window for AFT, by the attention itself for a "
        "ViT: compare heads and layers of one model, or AFT models of one window."
    )
    chart(locality.by_layer(series, name="mean distance (patches)"), "distance", "Mean distance by layer")


def chosen_cell(maps: HeadMaps, parameter: str | None = None) -> Cell:
    """The cell in the URL, its layer and head held inside the maps; the first head's strongest where there is none.

    There is none before any click, and where the offset or position lies outside the maps's frame.
    """
    cell = clicked(parameter or parameter_of(maps))
    return strongest(maps) if cell is None or maps.cell(cell.y, cell.x) is None else within(cell, maps)


def parameter_of(maps: HeadMaps) -> str:
    """The URL's name for a maps's cell: offsets and positions are told apart."""
    return "cell" if maps.by_offset else "place"


def keys(entry: Entry, picture: images.Chosen, side: str) -> None:
    """The image, its attribution and prediction for one model, and the keys of every layer and head."""
    image, shown, truth = images.for_model(picture, entry)
    loaded = loaders.checkpoint(str(entry.path), entry.revision)
    result = loaders.keys_of(str(entry.path), entry.revision, image)
    classes = [markless(str(name)) for name in loaded.data["classes"]]
    with st.container(horizontal=True, gap="small"):
        title = "Image" if truth is None else f"Image of class {_name(classes, truth)}"
        chart(pixels.picture(shown, title, height=PICTURE), f"image-{side}", "The image", width=PICTURE)
        figure = pixels.attribution(result.attribution, "Attribution", height=PICTURE)
        chart(figure, f"attribution-{side}", "Which pixels speak for the prediction", width=PICTURE)
        figure = key_views.probabilities(result.probabilities, classes, height=PICTURE)
        chart(figure, f"probabilities-{side}", "Most probable classes", width=PICTURE)
    predicted = plain(_name(classes, result.prediction))
    st.caption(
        f"Attribution: integrated gradients of the logit of {predicted} from a grey image; red pixels speak for it, "
        "blue ones against it."
    )
    maps = result.head_maps(entry.label)
    cell = chosen_cell(maps, f"key-{side}")
    figure = mosaic(maps.head_window(0), marked=cell)
    clickable(figure, f"keys-{side}", f"Keys of {entry.label}", f"key-{side}")
    value = maps.values[cell.layer, cell.head, cell.y, cell.x]
    st.markdown(f"{plain(cell_text(maps, cell))}: {plain(maps.unit)} = **{plain(number(value))}**")
    figure = enlarged(maps, cell.layer, cell.head, marked=(cell.y, cell.x), height=280)
    clickable(figure, f"key-map-{side}", f"Keys of layer {cell.layer}, head {cell.head}", f"key-{side}", width=370)


def snapshots(run: Run) -> None:
    """The position biases as they were after an epoch, coloured alike at every epoch; nothing if none were kept."""
    kept = bias_by_epoch(loaders.snapshots(str(run.path), run.written), run.label, single=run.single)
    if len(kept) < 2:
        return
    st.subheader("How the position biases grew", anchor=False)
    epochs = sorted(kept)
    epoch = st.select_slider("After epoch", epochs, value=epochs[-1], key="epoch")
    figure = mosaic(kept[int(epoch)].head_window(0), bound=shared_bound(*kept.values()), width=1200)
    chart(figure, "snapshot", f"exp(w) − 1 of {run.label} after epoch {epoch}")


def head_window(*shown: HeadMaps) -> int:
    """First head drawn: a slider where a model has more than are drawn at once, else 0."""
    most = max(maps.heads for maps in shown)
    if most <= MOST_HEADS:
        return 0
    steps = list(range(0, most, MOST_HEADS))
    return int(
        st.select_slider(
            "Heads",
            steps,
            format_func=lambda first: f"{first} to {min(first + MOST_HEADS, most) - 1} of {most}",
            key="head",
        )
    )


def strongest(maps: HeadMaps) -> Cell:
    """The cell of layer 0, head 0 with the largest |value|: what is enlarged before any click."""
    size = np.abs(np.nan_to_num(maps.values[0, 0]))
    row, column = np.unravel_index(int(size.argmax()), size.shape)
    return Cell(0, 0, *maps.coordinates(int(row), int(column)))


def number(value: float) -> str:
    """A value as it is shown; zero without a sign."""
    return f"{value + 0.0:.4g}"


def within(cell: Cell, maps: HeadMaps) -> Cell:
    """The cell with its layer and head held inside the model (a link may come from a larger model)."""
    layer = min(max(cell.layer, 0), maps.layers - 1)
    return Cell(layer, min(max(cell.head, 0), maps.heads - 1), cell.y, cell.x)


def _name(classes: list[str], index: int) -> str:
    """A class's name, or its number where the checkpoint has no name for it."""
    return classes[index] if index < len(classes) else str(index)
