"""Maps of A and B on a page: how they are sorted, scaled and framed, drawn, and what a click chooses."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import streamlit as st

from analyses.maps.head_maps import HeadMaps, shared_bound
from app import canvas, loaders, state
from app.back.jobs import JOBS
from app.canvas import Pane
from app.heads import Window, chosen_heads
from app.maps import COST, MEASURES, Looks, numbers_of
from app.models import Entry
from app.parts import part
from app.takeaway import Source
from app.waiting import awaited, job_of, visitor
from app.words import plain
from app.workspace import FILTERS, PLACE, SCALES, SORTS, Workspace

COST_IMAGES = 360
"""Test images of the knock-out of every head."""


def looks_of(entry: Entry, space: Workspace) -> tuple[Looks, bool]:
    """Where a model looks, and whether that is all of it: a ViT's attention is averaged image by image.

    InputError in words where it cannot be read.
    """
    if entry.looks != "attention":
        return loaders.looks(entry), True
    job = job_of("attention", f"Attention of {entry.label}", attention_arguments(entry, space))
    assert job is not None
    if job.result is None:
        st.session_state[f"drawn {entry.source}"] = 0
        if not job.active:
            raise ValueError(job.said or job.state)
        raise Pending(f"{entry.label}: attention is being averaged over its first images")
    st.session_state[f"drawn {entry.source}"] = job.result["looks"]["images"]
    return attention_looks(job.result["looks"], entry.label), not job.active


class Pending(Exception):
    """A job has nothing to show yet; the message says which."""


def attention_arguments(entry: Entry, space: Workspace) -> dict[str, Any]:
    """What the job of a ViT's averaged attention is asked with."""
    data = "" if entry.data else space["data"]
    return {"source": entry.source, "revision": entry.revision, "data": data, "images": space["images"]}


def source_of(entry: Entry, space: Workspace) -> Source:
    """What draws a model's maps by the command."""
    if entry.looks == "attention":
        return entry.label, "attention", attention_arguments(entry, space)
    return entry.label, "bias", {"source": entry.source, "revision": entry.revision}


def attention_looks(content: dict[str, Any], label: str) -> Looks:
    """Averaged attention as maps in the unit of exp(w) − 1."""
    count = content["grid"][0] * content["grid"][1]
    maps = HeadMaps(count * content["maps"] - 1, "n × attention − 1", label=label, distance=content["distance"])
    return Looks(
        maps, numbers_of(maps, content["maps"]), f"averaged over {content['images']} images", content["images"]
    )


def cost_of(entry: Entry) -> np.ndarray | None:
    """Accuracy lost without each head's bias, where a knock-out of every head has been run; else None."""
    arguments = {"source": entry.source, "revision": entry.revision, "images": COST_IMAGES}
    job = JOBS.ask("costs", f"Every head of {entry.label}", arguments, visitor=visitor(), start=False)
    return None if job is None or job.result is None else job.result.get("cost")


def controls(*, with_cost: bool = True, extra: Sequence[str] = ()) -> None:
    """Scale, order and filter of heads."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        state.choose(
            "Colours", "scale", SCALES, few=True,
            help="Each head over its own largest value; a signed logarithm, or ranks, over the model's; or one linear "
            "scale that both models share.",
        )  # fmt: skip
        sorts = {name: words for name, words in SORTS.items() if with_cost or name != COST}
        state.choose("Order", "sort", sorts, help="; ".join(f"{name}: {words}" for name, words in MEASURES.items()))
        state.choose("Heads", "show", FILTERS, help="Made by training: the map correlates less than a half with its "
                     "random start.")  # fmt: skip


def window_of(looks: Looks, entry: Entry, space: Workspace, key: str) -> Window:
    """The heads that are drawn of a model; words where the order cannot be had."""
    cost = cost_of(entry) if space["sort"] == COST else None
    try:
        return chosen_heads(looks, sort=space["sort"], show=space["show"], first=space["from"], cost=cost)
    except ValueError as error:
        st.caption(plain(f"{entry.label}: {error}"))
        return chosen_heads(looks, sort=PLACE, show=space["show"], first=space["from"])


def windows(shown: Sequence[Window]) -> None:
    """A slider to the other heads, where there are more than are drawn."""
    most = max(shown, key=lambda window: window.total)
    if all(window.total <= window.step for window in shown):
        return
    steps = list(range(0, most.total, most.step))
    key = state.widget_key("from")
    st.session_state[key] = max(step for step in steps if step <= max(0, state.current()["from"]))
    st.select_slider(
        "Heads drawn", steps, help="All heads can be reached; the rest are in the next windows.",
        format_func=lambda first: f"{first} to {min(first + most.step, most.total) - 1} of {most.total}",
        **state.bound("from", int),
    )  # fmt: skip


def pane_of(looks: Looks, entry: Entry, window: Window, **more: Any) -> Pane:
    """A model's maps as they are drawn."""
    words = "; ".join(part for part in (looks.note, window.words) if part)
    return Pane(looks.maps, entry.label, window.tiles, window.by_layer, words, **more)


def held_inside(panes: Sequence[Pane], place: str) -> None:
    """Put layer, head and cell right where the models have none such, and say so."""
    space = state.current()
    layers, heads = max(pane.maps.layers for pane in panes), max(pane.maps.heads for pane in panes)
    if space["layer"] >= layers or space["head"] >= heads:
        layer, head = min(space["layer"], layers - 1), min(space["head"], heads - 1)
        state.correct(
            f"layer {space['layer']}, head {space['head']} is in neither model, which have {layers} layers and {heads} "
            "heads at most", layer=layer, head=head,
        )  # fmt: skip
    where = space[place]
    if where != "class" and all(pane.maps.cell(*where) is None for pane in panes):
        frames = " and ".join(f"{pane.maps.frame[0]} × {pane.maps.frame[1]}" for pane in panes)
        state.correct(f"{place} {where[0]}, {where[1]} lies outside maps of {frames}", **{place: (0, 0)})


def clickable(
    panes: Sequence[Pane], key: str, place: str, *, pick: str = "cell", pairs: Sequence[Sequence[float]] = (),
    also: Any = None,
) -> None:  # fmt: skip
    """Draw panes and take clicks into the workspace, in a fragment of its own; `also` draws what follows a click.

    `place` is the choice that a cell is kept in: "offset" or "place"; with `pick` "target" a click into an enlarged map
    chooses that target.
    """
    held_inside(panes, place)
    contents = [canvas.packed(pane) for pane in panes]
    names = [content["hash"] for content in contents]
    bound = shared_bound(*(pane.maps for pane in panes))

    def chosen(cell: dict[str, Any]) -> None:
        new = {"side": "ab"[int(cell.get("side", 0)) % 2], "layer": int(cell["layer"]), "head": int(cell["head"])}
        if pick != "target" or cell.get("where") == "map":
            new[place] = (int(cell["y"]), int(cell["x"]))
        state.step(**new)
        if pick == "target" and cell.get("where") == "map":
            st.session_state["target moved"] = True

    def draw() -> None:
        space = state.current()
        where = space[place] if space[place] != "class" else (0, 0)
        cell = {"side": "ab".index(space["side"]), "layer": space["layer"], "head": space["head"], "y": where[0],
                "x": where[1]}  # fmt: skip
        target = None if space[place] == "class" else where
        canvas.show(panes, names, key, cell, chosen, scale=space["scale"], bound=bound, pick=pick,
                    target=target if pick == "target" else None, pairs=pairs)  # fmt: skip
        if also is not None:
            also()
        if st.session_state.pop("target moved", False):
            st.rerun(scope="app")

    part(draw)
    canvas.keep(contents, key)


def refined(sides: dict[str, Entry], draw: Any) -> None:
    """Draw what there is of averaged attention, and again when there is more of it."""
    try:
        draw()
    except Pending as pending:
        st.info(plain(f"{pending} …"))
    for side, entry in sides.items():
        if entry.looks == "attention":
            awaited_attention(entry, side)


def awaited_attention(entry: Entry, key: str) -> None:
    """How far the averaging of a ViT's attention has come, while it goes on; the page is drawn again at its end."""
    title = f"Attention of {entry.label}"
    arguments = attention_arguments(entry, state.current())
    job = JOBS.ask("attention", title, arguments, visitor=visitor(), start=False)

    def again(content: dict[str, Any], whole: bool) -> None:
        if content["looks"]["images"] != st.session_state.get(f"drawn {entry.source}"):
            st.rerun(scope="app")

    if job is not None and job.active:
        awaited("attention", title, arguments, again, key=f"attention {key}")
