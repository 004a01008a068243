"""Compare: where two models look, side by side, and what each head reads at the same offset."""

from dataclasses import replace

import numpy as np
import streamlit as st

from analyses.maps.head_maps import HeadMaps, nearest_frame, shared_frame
from app import bar, mosaics, state, takeaway
from app.canvas import Pane
from app.heads import paired
from app.maps import Looks
from app.models import Entry
from app.waiting import awaited, job_of
from app.words import TERMS, in_words, plain
from app.workspace import FRAMES, NEAR, PAIRS

DRAWS = 99


def framed(looks: list[Looks], frame: str) -> list[Looks]:
    """Maps by offset on one frame: of the offsets that both have, or that either has."""
    if not all(one.maps.by_offset for one in looks):
        return looks
    sides = (nearest_frame if frame == NEAR else shared_frame)(*(one.maps for one in looks))
    return [replace(one, maps=one.maps.framed(*sides)) for one in looks]


def match_arguments(sides: dict[str, Entry]) -> dict[str, object]:
    """What the job that pairs heads is asked with."""
    space = state.current()
    first, second = ([entry.source, entry.revision] for entry in sides.values())
    return {
        "first": first, "second": second, "data": space["data"], "images": space["images"], "draws": DRAWS,
        "measures": ["correlation"],
    }  # fmt: skip


def difference(own: Pane, other: Pane, pairs: list[list[float]]) -> Pane:
    """B less A for each pair of heads, head by head of A."""
    partner = {(int(p[0]), int(p[1])): (int(p[2]), int(p[3])) for p in pairs}
    values = np.full_like(own.maps.values, np.nan)
    tiles = []
    for tile in own.tiles:
        mate = partner.get(tile, tile) if pairs else tile
        if mate[0] < other.maps.layers and mate[1] < other.maps.heads:
            values[tile] = other.maps.values[mate] - own.maps.values[tile]
            tiles.append(tile)
    maps = HeadMaps(values, "B − A", by_offset=own.maps.by_offset)
    return Pane(maps, "B − A", tiles, own.by_layer and len(tiles) == len(own.tiles))


def draw(sides: dict[str, Entry]) -> None:
    """The mosaics, and what goes with them."""
    space = state.current()
    entries = list(sides.values())
    found = [mosaics.looks_of(entry, space) for entry in entries]
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        state.choose("Offsets", "frame", FRAMES, few=True, help=TERMS["offset"])
        pairing = state.choose(
            "Heads of A and B", "pair", PAIRS, few=True,
            help="By likeness: heads paired one to one by the correlation of their maps (`aft-lens match`).",
        )  # fmt: skip
        apart = state.flag("Difference", "difference", help="B less A for the same or the paired heads, signed.")
    looks = framed([one for one, _ in found], space["frame"])
    shown = [mosaics.window_of(one, entry, space, side) for one, (side, entry) in zip(looks, sides.items())]
    mosaics.windows(shown)
    panes = [mosaics.pane_of(one, entry, window) for one, entry, window in zip(looks, entries, shown)]
    pairs: list[list[float]] = []
    if pairing == "match" and entries[0] != entries[1]:
        job = job_of("match", "Pairing heads", match_arguments(sides))
        if job is not None and job.result is not None:
            pairs = job.result["pairs"]
            own, mates = paired(shown[0], pairs, (looks[1].maps.layers, looks[1].maps.heads))
            panes = [replace(panes[0], tiles=own, by_layer=False), replace(panes[1], tiles=mates, by_layer=False)]
    if any(not pane.tiles for pane in panes):
        st.info("No head passes these filters; choose “All heads”.")
        return
    if apart:
        panes.append(difference(panes[0], panes[1], pairs))
        if not panes[-1].tiles:
            panes.pop()
    mosaics.clickable(panes, "compare", "offset", pairs=pairs)
    takeaway.maps(panes, [mosaics.source_of(entry, space) for entry in dict.fromkeys(entries)], "compare")
    if pairing == "match":
        awaited("match", "Pairing heads", match_arguments(sides), lambda content, whole: _likeness(content))


def _likeness(content: dict[str, object]) -> None:
    table = content["table"]
    assert isinstance(table, dict)
    st.caption(plain(f"{table['title']}."))
    st.table([dict(zip(table["columns"], row, strict=True)) for row in table["rows"]])


sides = bar.page(
    "Compare",
    "Where each head looks: exp(w) − 1 for AFT, averaged attention for a ViT. Pale is no more than any other position. "
    "Click a cell, or move with the arrow keys, to read it in both models.",
)
mosaics.controls()
with in_words():
    mosaics.refined(sides, lambda: draw(sides))
