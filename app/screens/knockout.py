"""Knock-out: what a layer, a head or an offset of either model is worth, beside random and strongest places."""

from typing import Any

import numpy as np
import streamlit as st

from app import bar, charts, mosaics, state, takeaway
from app.models import Entry
from app.waiting import awaited
from app.words import in_words, plain

IMAGES = 500
PARTS = {"offset": "The chosen offset", "head": "The chosen head", "layer": "The whole layer"}


def arguments(entry: Entry, part: str) -> dict[str, Any]:
    """What the job is asked with."""
    space = state.current()
    return {
        "source": entry.source, "revision": entry.revision, "data": "" if entry.data else space["data"],
        "images": IMAGES, "layer": space["layer"], "head": None if part == "layer" else space["head"],
        "offset": list(space["offset"]) if part == "offset" and entry.looks == "offset" else None,
    }  # fmt: skip


def one(entry: Entry) -> None:
    """The chosen part of one model taken out."""
    parts = PARTS if entry.looks == "offset" else {name: words for name, words in PARTS.items() if name != "offset"}
    part = st.segmented_control(
        "Take out", list(parts), format_func=parts.__getitem__, default="head", required=True, key="part taken out",
    ) or "head"  # fmt: skip
    space = state.current()
    where = f"layer {space['layer']}"
    where += f", head {space['head']}" if part != "layer" else ""
    where += f", offset Δy {space['offset'][0]:+d}, Δx {space['offset'][1]:+d}" if part == "offset" else ""
    what = "attention becomes uniform" if entry.looks == "attention" else "w becomes 0, the pooled weight"
    st.caption(plain(f"{entry.label}, {where}: {what}. Click another one above."))
    awaited(
        "knockout", f"Knocking out {where} of {entry.label}", arguments(entry, part),
        lambda content, whole: charts.drawn(content, "worth", "Change of accuracy with and without controls"),
        button="Measure", help=f"On the first {IMAGES} test images, beside five random selections of the same size.",
        key=f"knockout {entry.label} {where}",
    )  # fmt: skip


def every(entry: Entry) -> None:
    """Every head on its own."""
    if entry.looks != "offset":
        return
    awaited(
        "costs", f"Every head of {entry.label}",
        {"source": entry.source, "revision": entry.revision, "images": mosaics.COST_IMAGES},
        _costs, button="Measure every head",
        help="Heads can then be sorted by what they cost, on every page.", key=f"costs {entry.label}",
    )  # fmt: skip


def _costs(content: dict[str, Any], whole: bool) -> None:
    cost = np.asarray(content["cost"])
    order = np.argsort(-cost, axis=None)[:10]
    rows = [
        {"Layer, head": f"{layer}, {head}", "Accuracy lost (points)": f"{cost[layer, head]:+.2f}"}
        for layer, head in (np.unravel_index(place, cost.shape) for place in order)
    ]
    st.caption("The ten heads that cost most; “Order: Cost” sorts all maps so.")
    st.table(rows)
    charts.drawn(content, "costs", "Change of accuracy by edit, layer and head")


sides = bar.page(
    "Knock-out",
    "Choose a head and an offset in the maps, take it out of either model, and see what accuracy it was worth.",
)
mosaics.controls()


def draw() -> None:
    """The maps to choose in, then the measurements of the chosen side."""
    space = state.current()
    entries = list(sides.values())
    looks = [mosaics.looks_of(entry, space)[0] for entry in entries]
    shown = [mosaics.window_of(one, entry, space, side) for one, (side, entry) in zip(looks, sides.items())]
    mosaics.windows(shown)
    panes = [mosaics.pane_of(one, entry, window) for one, entry, window in zip(looks, entries, shown)]

    def also() -> None:
        side = state.choose(
            "Of model", "side", {side: f"{side.upper()}: {e.label}" for side, e in sides.items()}, few=True
        )
        with in_words():
            one(sides[side])
            st.subheader("Every head on its own", anchor=False)
            every(sides[side])

    mosaics.clickable(panes, "knockout", "offset", also=also)
    takeaway.maps(panes, [mosaics.source_of(entry, space) for entry in dict.fromkeys(entries)], "knockout")


with in_words():
    mosaics.refined(sides, draw)
