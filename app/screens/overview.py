"""Overview: the models at hand, and the two that are looked at."""

import streamlit as st

from app import bar, loaders, report, state
from app.back import shelf
from app.maps import LEARNED
from app.models import Entry
from app.words import TERMS, in_words, plain

COLUMNS = (
    "Model", "What it is", "Data", "Held-out accuracy", "Parameters", "Offsets kept", "Learned", "Latency", "From",
)  # fmt: skip
SMALL = 3_000_000
"""Parameters up to which a model is opened to be listed."""
ORIGINS = {"shipped": "ships", "checkpoint": "checkpoint", "run": "run", "in progress": "run in progress"}


def learned(entry: Entry) -> str:
    """Share of the maps that training made, mean over heads; of models that are read in a moment."""
    if entry.looks != "offset" or entry.parameters > SMALL:
        return "–"
    try:
        found = loaders.looks(entry).measures.get(LEARNED)
    except ValueError:  # the page that shows the maps says why
        return "–"
    return "–" if found is None else f"{100 * found.mean():.0f} %"


def latencies() -> dict[str, float]:
    """Milliseconds of a batch by folder, of models that Analyses has timed without being refused; the latest."""
    found: dict[str, float] = {}
    for place in sorted(shelf.folder().glob("latency-*"), key=lambda one: one.stat().st_mtime):
        content = shelf.get(place)
        if content is not None and "sources" in content and not content["refused"]:
            found |= dict(zip(content["sources"], content["medians"], strict=True))
    return found


def row(entry: Entry, timed: dict[str, float]) -> dict[str, str]:
    """What is known of a model before it is opened."""
    if entry.problem:
        return dict.fromkeys(COLUMNS, "–") | {
            "Model": plain(entry.label), "What it is": plain(f"cannot be looked at: {entry.problem}"),
        }  # fmt: skip
    every = entry.layers * entry.heads * entry.window**2 if entry.looks == "offset" else 0
    return {
        "Model": plain(entry.label),
        "What it is": plain(entry.line.rpartition(" · ")[0] if entry.data else entry.line),
        "Data": plain(entry.data) or "–",
        "Held-out accuracy": "–" if entry.accuracy is None else f"{100 * entry.accuracy:.1f} %",
        "Parameters": f"{entry.parameters:,}" if entry.parameters else "–",
        "Offsets kept": "–" if not every else f"{entry.kept or every:,} of {every:,}",
        "Learned": learned(entry),
        "Latency": f"{timed[entry.source]:.1f} ms" if entry.source in timed else "–",
        "From": ORIGINS.get(entry.origin, entry.origin),
    }


def add_other() -> None:
    """Take another model for A or B: a path, or another library's."""
    text = st.session_state["other model"].strip()
    if not text:
        return
    try:
        entry = loaders.entry_of(text)
        if entry.problem:
            raise ValueError(entry.problem)
        state.step(**{st.session_state["other side"].lower(): entry.label})
    except ValueError as error:
        state.say(f"{text}: {error}")


sides = bar.page(
    "Overview",
    "Where vision models look: choose two to compare. What is chosen here holds on every page, and is in the address.",
)
known = loaders.catalogue()
times = latencies()
columns = st.columns([3, 1, 1], vertical_alignment="bottom")
with columns[0]:
    st.text_input(
        "Another model", key="other model", placeholder="a folder, timm:NAME, torchvision:NAME or hf:NAME",
        help="A checkpoint's folder below the folders that the app was started with, or a ViT of another library "
        "whose weights are on this machine: pages fetch nothing.",
    )  # fmt: skip
with columns[1]:
    st.segmented_control("As", ["A", "B"], default="B", required=True, key="other side")
with columns[2]:
    st.button("Look at it", on_click=add_other, width="stretch")
rows = [row(entry, times) for entry in known.values()]
rows += [row(entry, times) for entry in sides.values() if entry.label not in known]
st.table([{name: one[name] for name in COLUMNS} for one in rows])
st.caption("Learned: " + TERMS["learned"] + " Latency: of a batch of 64, once A and B were timed on Analyses.")
with in_words():
    for word, installed, local in loaders.libraries():
        if not installed:
            continue
        st.caption(
            plain(f"{word}: installed; " + (f"weights here: {', '.join(local)}" if local else "no weights here yet"))
        )
items = st.session_state.get("report", [])
if items:
    st.subheader("Report", anchor=False)
    for title, _ in items:
        st.caption(plain(title))
    link = "?" + "&".join(f"{name}={value}" for name, value in state.current().address().items())
    st.download_button(
        f"Evidence folder ({len(items)} results)", data=lambda: report.archive(items, link),
        file_name="aft-lens-report.zip", mime="application/zip", on_click="ignore", icon=":material/folder_zip:",
    )  # fmt: skip
for entry in known.values():
    if entry.problem:
        st.caption(plain(f"{entry.source} is left out: {entry.problem}"))
