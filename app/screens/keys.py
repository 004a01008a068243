"""Keys: what each head reads in an image, the images that excite it most, and what predictions rest on."""

from typing import Any

import streamlit as st

from app import bar, evidence, loaders, mosaics, pictures, state, takeaway
from app.canvas import Pane
from app.models import Entry
from app.waiting import awaited
from app.words import in_words, plain


def draw(entries: list[tuple[str, Entry]]) -> None:
    """The image with its predictions, the keys of all heads, and the evidence below."""
    image = pictures.choose(*(entry for _, entry in entries))
    if image is None:
        return
    panes: list[Pane] = []
    shown = []
    for side, entry in entries:
        looks = loaders.keys(entry, "", image)
        said = loaders.seen(entry, "", image)
        window = mosaics.window_of(looks, entry, state.current(), side)
        shown.append(window)
        classes = loaders.samples(entry, "")["classes"]
        words = "; ".join(part for part in (evidence.says(said, classes), window.words) if part)
        panes.append(Pane(looks.maps, entry.label, window.tiles, window.by_layer, words, said["picture"]))
    mosaics.windows(shown)
    mosaics.clickable(panes, "keys", "place")
    asked = [(e.label, "keys", {"source": e.source, "revision": e.revision, "image": image}) for _, e in entries]
    takeaway.maps(panes, asked, "keys")
    for side, entry in entries:
        st.subheader(plain(f"{side.upper()}: {entry.label}"), anchor=False)
        with in_words():
            _attribution(entry, image)
            evidence.survey(entry, side)


def _attribution(entry: Entry, image: dict[str, Any]) -> None:
    arguments = {"source": entry.source, "revision": entry.revision, "image": image}
    awaited(
        "attribution", f"Attribution of {entry.label}", arguments,
        lambda content, whole: evidence.attribution(content, entry.label), button="Which pixels does it rest on?",
        help="Integrated gradients of the predicted logit from a grey image (Captum), a few seconds.",
        key=f"attribution {entry.label}",
    )  # fmt: skip


sides = bar.page(
    "Keys",
    "The keys K of every head on an image, each less its mean: red positions are read more, blue ones less.",
)
mosaics.controls(with_cost=False)
with in_words():
    fitting = [(side, entry) for side, entry in sides.items() if entry.looks == "offset"]
    for entry in sides.values():
        if entry.looks != "offset":
            st.info(
                plain(
                    f"{entry.label} is {entry.mixer} and has no key of its own a head: Attention shows what it reads."
                )
            )
    if fitting[1:] and fitting[0][1] == fitting[1][1]:
        fitting = fitting[:1]
    if fitting:
        draw(fitting)
