"""Keys as evidence: thumbnails to choose from, what excites a head, means by class, and a map of all images."""

import base64
import io
from typing import Any

import numpy as np
import streamlit as st
from PIL import Image

from app import charts, state
from app.models import Entry
from app.waiting import awaited
from app.words import in_words, plain

IMAGES = 360
"""Test images that are looked through."""
SHOWN = 24
"""Thumbnails of a row of them."""
EVERY = "all"


def says(said: dict[str, Any], classes: list[str]) -> str:
    """What a model says of an image, in words."""
    chances = said["probabilities"]
    if chances is None:
        return ""
    best = np.argsort(chances)[::-1][:3]
    guess = ", ".join(f"{named(classes, int(one))} {100 * chances[one]:.1f} %" for one in best)
    truth = "" if said["truth"] is None else f" (it is {named(classes, said['truth'])})"
    return f"says {guess}{truth}"


def named(classes: list[str], index: int) -> str:
    """A class's name, or its number where the checkpoint has none for it."""
    return classes[index] if index < len(classes) else str(index)


def attribution(content: dict[str, Any], label: str) -> None:
    """Pixels that speak for a prediction, red, and against it."""
    values = np.asarray(content["values"])
    limit = float(np.abs(values).max()) or 1.0
    charts.heat(values, limit, f"attribution {label}", f"Attribution of {label}", height=260)
    st.caption("Integrated gradients of the predicted logit from a grey image: red speaks for it, blue against it.")


def survey(entry: Entry, side: str) -> None:
    """What is found when all test images are looked through."""
    space = state.current()
    awaited(
        "survey", f"Looking through the images of {entry.label}",
        {"source": entry.source, "revision": entry.revision, "images": IMAGES, "projection": space["projection"]},
        lambda content, whole: _found(content, entry, side) if whole else None, button="Look through the test images",
        help=f"Predictions, keys and features of the first {IMAGES}.", key=f"survey {side}",
    )  # fmt: skip


def _found(content: dict[str, Any], entry: Entry, side: str) -> None:
    labels, chances = np.asarray(content["labels"]), np.asarray(content["probabilities"])
    guesses, classes = chances.argmax(1), content["classes"]
    wrong = (guesses != labels) & (labels >= 0)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        options = {EVERY: "All classes"} | {str(number): name for number, name in enumerate(classes)}
        klass = state.choose("Class", "klass", options)
        only = state.flag("Wrong predictions alone", "wrong")
    keep = np.ones(len(labels), bool) if klass == EVERY else labels == int(klass)
    keep &= wrong if only else True
    chosen = np.flatnonzero(keep)
    st.caption(
        plain(
            f"{len(chosen)} of {len(labels)} test images of {content['data']}, "
            f"{int(wrong[chosen].sum())} of them wrong (framed)."
        )
    )
    _thumbnails(content, chosen[:SHOWN], guesses, wrong, f"thumbnails {side}", "Choose an image")
    if "peaks" in content:
        space, shape = state.current(), content["peaks"].shape
        layer, head = min(space["layer"], shape[1] - 1), min(space["head"], shape[2] - 1)
        order = chosen[np.argsort(-content["peaks"][chosen, layer, head])]
        st.caption(f"What excites layer {layer}, head {head} most: the largest K − mean anywhere")
        _thumbnails(content, order[:SHOWN], guesses, wrong, f"exciting {side}", "Choose an image")
        if "means" in content:
            _class_means(content, layer, head, side)
    _map(content, wrong, side)


def _thumbnails(
    content: dict[str, Any], chosen: np.ndarray, guesses: np.ndarray, wrong: np.ndarray, key: str, label: str
) -> None:
    """A strip of images; wrong ones are framed. A box takes the number."""
    if not len(chosen):
        st.caption("None.")
        return
    thumbnails, classes = np.asarray(content["thumbnails"]), content["classes"]
    columns = min(12, len(chosen))
    side = thumbnails.shape[1] + 6
    strip = np.zeros((-(-len(chosen) // columns) * side, columns * side, 4), np.uint8)
    for place, number in enumerate(chosen):
        top, left = (place // columns) * side, (place % columns) * side
        if wrong[number]:
            strip[top : top + side - 2, left : left + side - 2] = (210, 96, 63, 255)
        strip[top + 2 : top + side - 4, left + 2 : left + side - 4] = np.dstack(
            [thumbnails[number], np.full(thumbnails.shape[1:3], 255, np.uint8)]
        )
    listed = ", ".join(map(str, chosen.tolist()))
    style = "max-width:100%;image-rendering:pixelated"
    st.html(f'<img alt="Images {listed}" style="{style}" src="{_url(strip)}">')
    words = {
        int(number): f"{number}: {named(classes, int(guesses[number]))}" + (" (wrong)" if wrong[number] else "")
        for number in chosen
    }

    def take() -> None:
        if st.session_state[key] is not None:
            state.step(image=str(st.session_state[key]))

    st.pills(label, list(words), format_func=words.__getitem__, key=key, on_change=take)


def _url(picture: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _class_means(content: dict[str, Any], layer: int, head: int, side: str) -> None:
    means = np.asarray(content["means"])[:, layer, head]
    st.caption(f"Keys of layer {layer}, head {head}, mean over the images of each class")
    charts.heats(means, content["classes"], f"means {side}", "Mean keys by class")


def _map(content: dict[str, Any], wrong: np.ndarray, side: str) -> None:
    with in_words():
        state.choose("Map of the images", "projection", ("PCA", "UMAP"), few=True,
                     help="What the classifier reads of each image, in the plane.")  # fmt: skip
        charts.scatter(np.asarray(content["places"]), np.asarray(content["labels"]), content["classes"], wrong,
                       f"map {side}", f"Images by {content['projection']} of what the classifier reads")  # fmt: skip
