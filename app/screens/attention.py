"""Attention: what one place of an image reads, with AFT's normalised weights beside a ViT's attention."""

from typing import Any

import numpy as np
import streamlit as st

from analyses.maps.head_maps import HeadMaps
from app import bar, loaders, mosaics, pictures, state, takeaway
from app.canvas import Pane
from app.heads import Window
from app.maps import Looks, numbers_of
from app.models import Entry
from app.words import TERMS, in_words, plain
from app.workspace import CLASS_TOKEN, PARTS


def read(entry: Entry, image: dict[str, Any], target: Any) -> dict[str, Any]:
    """What a model reads at the target; an AFT-conv, which has no class token, in the middle where that is chosen."""
    place = None if target == CLASS_TOKEN else target
    if place is None and entry.looks == "offset":
        place = (entry.grid // 2, entry.grid // 2)
    return loaders.effective(entry, pictures.data_for(entry), image, place, state.current()["part"])


def pane(entry: Entry, side: str, found: dict[str, Any]) -> tuple[Pane, Window]:
    """Its maps over positions, as excess over a uniform share."""
    weights = found["weights"]
    count = weights.shape[2] * weights.shape[3]
    maps = HeadMaps(count * weights - 1, "n × weight − 1", by_offset=False, label=entry.label)
    looks = Looks(maps, numbers_of(maps, weights))
    window = mosaics.window_of(looks, entry, state.current(), side)
    sums = [float(found["to_patches"][tile]) for tile in window.tiles]
    where = "the class token" if found["target"] is None else f"row {found['target'][0]}, column {found['target'][1]}"
    low, high = float(np.min(found["to_patches"])), float(np.max(found["to_patches"]))
    summed = "weights sum to 1"
    if low < 0.9995:
        summed = f"weights on patches sum to {low:.2f} to {high:.2f}, the rest is on prefix tokens"
    words = "; ".join(part for part in (f"read at {where}", summed, window.words) if part)
    shown = Pane(maps, entry.label, window.tiles, window.by_layer, words, found["picture"], sums, found["target"])
    return shown, window


def draw(sides: dict[str, Entry]) -> None:
    """Image, target, and all heads of both models."""
    entries = [entry for entry in sides.values() if entry.looks in ("offset", "attention")]
    for entry in sides.values():
        if entry not in entries:
            st.info(
                plain(f"{entry.label} is {entry.mixer}: Compare shows its biases; it has no weights by image here.")
            )
    if not entries:
        return
    image = pictures.choose(*entries)
    if image is None:
        return
    space = state.current()
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        state.choose("AFT's weights of", "part", PARTS, few=True, help=TERMS["effective attention"] + " Position alone "
                     "knocks the keys out (K = 0), keys alone the biases (w = 0).")  # fmt: skip
        if any(entry.looks == "attention" for entry in entries):
            st.button(
                "Class token of the ViT", on_click=lambda: state.step(target=CLASS_TOKEN),
                disabled=space["target"] == CLASS_TOKEN,
                help="What the class is read from. An AFT-conv has none: it is shown at its middle.",
            )  # fmt: skip
    found = [read(entry, image, state.current()["target"]) for entry in entries]
    drawn = [pane(entry, side, one) for (side, entry), one in zip(_named(sides, entries), found)]
    mosaics.windows([window for _, window in drawn])
    st.caption("Click a patch in an enlarged map, which lies over the image, to read there; a tile chooses its head.")
    mosaics.clickable([one for one, _ in drawn], "attention", "target", pick="target")
    asked = [(entry.label, "attend", arguments(entry, image, one["target"])) for entry, one in zip(entries, found)]
    takeaway.maps([one for one, _ in drawn], asked, "attention", pick="target")


def arguments(entry: Entry, image: dict[str, Any], target: tuple[int, int] | None) -> dict[str, Any]:
    """What the job that draws the files of this is asked with."""
    return {
        "source": entry.source, "revision": entry.revision, "data": pictures.data_for(entry), "image": image,
        "target": None if target is None else list(target),
    }  # fmt: skip


def _named(sides: dict[str, Entry], entries: list[Entry]) -> list[tuple[str, Entry]]:
    return [(side, entry) for side, entry in sides.items() if entry in entries]


sides = bar.page(
    "Attention",
    "What a target reads in one image: AFT's exp(K + w), normalised over sources, beside a row of a ViT's attention. "
    "0 is a uniform share.",
)
mosaics.controls(with_cost=False)
with in_words():
    draw(sides)
