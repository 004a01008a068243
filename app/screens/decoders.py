"""Decoders: what two of them make of the beginnings of test images or text (Fig. 4), and where they look."""

from typing import Any

import streamlit as st

from app import charts, loaders, state
from app.models import Entry
from app.waiting import awaited, show_lines
from app.words import heading, in_words, marked, plain

COUNT = 8
"""Sequences that are completed."""
PREFERRED = {"da": ("digits-pixels-aft-local",), "db": ("kjv-text", "digits-pixels-transformer")}


def pick(side: str, found: dict[str, Entry]) -> Entry:
    """A decoder by the workspace's choice, or where there is none, the preferred one."""
    label = state.current()[side]
    if label not in found:
        if label:
            state.say(f"{side} must be one of {', '.join(found)}, the address says {label}")
        label = next((name for name in PREFERRED[side] if name in found), next(iter(found)))
        state.correct("", **{side: label})
    state.choose("Left" if side == "da" else "Right", side, list(found))
    st.caption(plain(found[label].line))
    return found[label]


def settings() -> tuple[float, float, int]:
    """The share that is given, the temperature and the seed."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        now = state.current()
        for name in ("given", "temperature", "seed"):
            st.session_state[state.widget_key(name)] = now[name]
        st.slider("Given", 0, 90, step=10, format="%d %%", **state.bound("given", int))
        st.slider("Temperature", 0.0, 1.5, step=0.1, **state.bound("temperature", float))
        st.number_input("Seed", 0, 2**31, step=1, **state.bound("seed", int))
    return now["given"] / 100, now["temperature"], now["seed"]


def completed(content: dict[str, Any], side: str, label: str) -> None:
    """Images, or text with what was drawn in bold."""
    if content["grid"]:
        charts.chart(content["figure"], f"completions {side}", f"Given, completed and true images of {label}")
        st.caption("First row: what is given, the rest in red. Second: completed. Last: as they are.")
    for given, drawn in content.get("parts", ()):
        st.markdown(marked(given, drawn))
    show_lines(content["command"], content.get("python", ""))


def shown(entry: Entry, side: str, keep: float, temperature: float, seed: int) -> None:
    """Completions of one decoder, and its biases by offset."""
    own = {"source": entry.source, "revision": entry.revision}
    asked = {**own, "count": COUNT, "keep": keep, "temperature": temperature, "seed": seed}
    awaited(
        "completions", f"Completing by {entry.label}", asked,
        lambda content, whole: completed(content, side, entry.label) if whole else None, key=f"completions {side}",
    )  # fmt: skip
    if entry.looks != "pair":
        st.caption(plain(f"{entry.mixer} has no position biases to show by offset."))
        return
    awaited("decoder_biases", f"w of {entry.label}", own,
            lambda content, whole: charts.drawn(content, f"offsets {side}", f"w by offset of {entry.label}"),
            key=f"offsets {side}")  # fmt: skip


state.opened()
heading(
    "Decoders",
    "Test images or text of which two decoders see the beginning and draw the rest; below, w by offset: how much more "
    "a source that far back weighs than by its key alone.",
)
state.notes()
known = loaders.catalogue()
for entry in known.values():
    if entry.problem:
        st.warning(plain(f"{entry.source} is left out: {entry.problem}"))
found = {label: entry for label, entry in known.items() if entry.kind == "decoder" and not entry.problem}
if not found:
    st.info("**There are no decoders yet.** Train one (about a minute on two cores), then reload:")
    st.code("aft-lens train --recipe digits-pixels-aft-local", language="bash")
    st.stop()
columns = st.columns(2, gap="medium")
with columns[0]:
    first = pick("da", found)
with columns[1]:
    second = pick("db", found)
with in_words():
    keep, temperature, seed = settings()
    for column, entry, side in zip(st.columns(2, gap="medium"), (first, second), ("left", "right"), strict=True):
        with column, in_words():
            shown(entry, side, keep, temperature, seed)
