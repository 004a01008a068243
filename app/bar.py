"""The top of every page: models A and B, and what had to be put right."""

from collections.abc import Sequence

import streamlit as st

from app import loaders, state
from app.models import Entry
from app.places import roots
from app.words import heading, plain

PREFERRED = {"a": ("cifar10-conv", "digits-single"), "b": ("cifar10-vit", "digits-vit", "digits-entropy")}
"""Folders that are chosen while nothing is."""


def page(title: str, text: str) -> dict[str, Entry]:
    """Begin a page: its heading and the models A and B by side; stops with a command where there are no models."""
    state.opened()
    heading(title, text)
    known = loaders.catalogue()
    found = {label: entry for label, entry in known.items() if not entry.problem and entry.kind == "vision"}
    if not found and not any(state.current()[side] for side in PREFERRED):
        _nothing(known)
    sides = _sides(found)
    columns = st.columns(2, gap="medium")
    for column, side in zip(columns, PREFERRED, strict=True):
        with column:
            _pick(side, sides[side], found)
    _images_of_others(list(sides.values()))
    state.notes()
    return sides


def _sides(found: dict[str, Entry]) -> dict[str, Entry]:
    """The chosen models; where one cannot be, words, and another in its place."""
    sides: dict[str, Entry] = {}
    for side in PREFERRED:
        label = state.current()[side]
        entry = None
        if label:
            try:
                entry = loaders.entry_of(label)
            except ValueError as error:
                state.say(f"{side.upper()}: {error}")
            if entry is not None and entry.kind != "vision":
                state.say(f"{side.upper()}: {label} is a decoder; Decoders shows what it draws")
                entry = None
            if entry is not None and entry.problem:
                state.say(f"{side.upper()}: {label} cannot be looked at: {entry.problem}")
                entry = None
        if entry is None:
            if not found:
                _nothing(loaders.catalogue())
            entry = _preferred(side, found, others=list(sides.values()))
            state.correct("", **{side: entry.label})
        sides[side] = entry
    return sides


def _preferred(side: str, found: dict[str, Entry], others: Sequence[Entry]) -> Entry:
    """A model to begin with, another one than the other side's where there are two."""
    folders = {entry.source.rsplit("/", 1)[-1]: entry for entry in reversed(found.values())}
    wanted = [folders[name] for name in PREFERRED[side] if name in folders]
    return next((entry for entry in [*wanted, *found.values()] if entry not in others), next(iter(found.values())))


def _pick(side: str, entry: Entry, found: dict[str, Entry]) -> None:
    options = list(found) if entry.label in found else [entry.label, *found]
    key = state.widget_key(side)
    st.session_state[key] = entry.label
    st.selectbox(side.upper(), options, **state.bound(side))
    st.caption(plain(entry.line))


def _images_of_others(entries: list[Entry]) -> None:
    """Which images another library's ViT looks at, where one is chosen."""
    if not any(":" in entry.source and not entry.data for entry in entries):
        return
    key = state.widget_key("data")
    st.session_state[key] = state.current()["data"]
    st.text_input(
        "Images for other libraries' ViTs", placeholder="digits, cifar10, images:PATH",
        help="A data set of `aft-lens list`, or images:PATH for a folder of image files below a folder that the app "
        "was started with.", **state.bound("data"),
    )  # fmt: skip


def _nothing(known: dict[str, Entry]) -> None:
    """Say what to run, and stop."""
    for entry in (entry for entry in known.values() if entry.problem):
        st.warning(plain(f"{entry.source} is left out: {entry.problem}"))
    places = ", ".join(plain(path) for path in roots())
    st.info(f"**There are no models yet** in {places}.\n\nTrain one (about a minute on two cores), then reload:")
    st.code("aft-lens train --recipe digits-single\naft-lens app", language="bash")
    st.stop()
