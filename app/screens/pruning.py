"""Pruning: accuracy against the offsets that each head keeps, and the model at one k."""

from typing import Any

import streamlit as st

from app import bar, charts, loaders, state
from app.models import Entry
from app.waiting import awaited
from app.words import TERMS, in_words, plain
from app.workspace import FIELDS

IMAGES = 360
"""Test images; none of them are calibrated on."""
KEEPS = (1, 2, 4, 8, 16, 32)
QUICK = {
    "magnitude": "largest |exp(w) − 1|", "hard": "largest softmax(w)", "activation": "share of what the head reads",
    "taylor": "first-order change of the loss", "random": "at random (control)", "near": "nearest (control)",
}  # fmt: skip
"""Criteria that answer while one waits, as they ship; those of other packages are in the command."""
PLAIN: Any = {"delta_color": "off", "delta_arrow": "off"}
"""A change that is neither good nor bad: most are within their intervals."""


INSTEAD = ("digits-conv", "digits-entropy", "digits-single")
"""Models that ship whose images come with scikit-learn: shown where neither chosen one can be pruned here."""


def why_not(entry: Entry) -> str:
    """Why a model cannot be pruned here, in words; empty for one that can."""
    if entry.pruned:
        return "is pruned already"
    if entry.looks != "offset":
        return f"is {entry.mixer}, which has no position biases by offset"
    try:
        note = loaders.samples(entry, "")["note"]
    except ValueError as error:
        return f"has no images here: {error}"
    return f"cannot be measured: {note}, and accuracy needs classes" if note else ""


def instead() -> Entry | None:
    """A model to open on where neither chosen one can be pruned; None where there is none either."""
    known = {entry.source.rpartition("/")[2]: entry for entry in loaders.catalogue().values() if not entry.problem}
    return next((known[name] for name in INSTEAD if name in known and not why_not(known[name])), None)


def curve(entry: Entry) -> None:
    """Criteria against k."""
    space = state.current()
    by, keeps = list(space["by"]), sorted(space["keep"])
    columns = st.columns(2)
    known = loaders.criteria()
    with columns[0]:
        key = state.widget_key("by")
        st.session_state[key] = [name for name in by if name in known]
        st.multiselect("Keep by", known, format_func=lambda name: f"{name}: {QUICK.get(name, '')}".rstrip(": "),
                       **state.bound("by", tuple))  # fmt: skip
    with columns[1]:
        key = state.widget_key("keep")
        options = sorted({*KEEPS, *keeps})
        st.session_state[key] = keeps
        st.multiselect("Offsets kept a head (k)", options, help=TERMS["k"],
                       **state.bound("keep", lambda chosen: tuple(sorted(chosen))))  # fmt: skip
    unknown = [name for name in by if name not in known]
    if unknown:
        state.correct(
            f"by must be among {', '.join(known)}, the address says {', '.join(unknown)}",
            by=tuple(name for name in by if name in known) or FIELDS["by"].default,
        )  # fmt: skip
        by = list(state.current()["by"])
    keeps = [keep for keep in keeps if keep <= entry.window**2]
    if not by or not keeps:
        st.info(f"Choose a criterion and a k of 0 to {entry.window**2}.")
        return
    awaited(
        "curve", f"Pruning {entry.label}",
        {"source": entry.source, "revision": entry.revision, "criteria": by, "keeps": keeps, "images": IMAGES},
        lambda content, whole: charts.drawn(content, "curve", f"Accuracy of {entry.label} against k"),
        key=f"curve {entry.label}",
    )  # fmt: skip


def at_one(entry: Entry) -> None:
    """Parity, size and kept offsets at one k."""
    space = state.current()
    keeps = [keep for keep in sorted(space["keep"]) if keep <= entry.window**2]
    by = list(space["by"])
    if not keeps or not by:
        return
    columns = st.columns(2)
    keep = columns[0].segmented_control("At k", keeps, default=keeps[0], required=True, key=f"one k of {keeps}")
    name = columns[1].segmented_control("By", by, default=by[0], required=True, key=f"one criterion of {by}")
    awaited(
        "prune", f"Pruning {entry.label} to k = {keep}",
        {"source": entry.source, "revision": entry.revision, "criterion": name, "keep": keep, "images": IMAGES},
        _rung, key=f"prune {entry.label}",
    )  # fmt: skip


def _rung(content: dict[str, Any], whole: bool) -> None:
    if not whole:
        return
    dense, indexed = content["rows"][0], content["rows"][-1]
    low, high = indexed["difference_interval"]
    columns = st.columns(4)
    columns[0].metric(
        "Accuracy, indexed", f"{100 * indexed['accuracy']:.1f} %",
        f"{100 * indexed['difference']:+.2f} points ({100 * low:+.2f} to {100 * high:+.2f})", **PLAIN,
    )  # fmt: skip
    columns[1].metric("max |Δlogit| to masked", f"{content['parity']:.1e}")
    columns[2].metric("Size", f"{indexed['bytes'] / 1e3:,.0f} kB",
                      f"{100 * (indexed['bytes'] / dense['bytes'] - 1):+.1f} %", **PLAIN)  # fmt: skip
    columns[3].metric("Largest change of a logit", f"{indexed['logit_change']:.2g}")
    charts.kept_offsets(content["offsets"], "offsets")
    charts.show_table(content["table"])
    st.caption(
        f"On {content['images']} test images; criteria are computed on validation images. |Δlogit| to parent is what "
        "cutting changed, to masked the parity of pure indexing. Analyses times models against one another."
    )


sides = bar.page(
    "Pruning",
    "Every head keeps k offsets; the layer becomes pooling and indexing, with the same outputs as the masked "
    "convolution.",
)
whys = {side: why_not(entry) for side, entry in sides.items()}
can = {side: entry for side, entry in sides.items() if not whys[side]}
for side, entry in sides.items():
    if whys[side]:
        st.caption(plain(f"{side.upper()}, {entry.label}, {whys[side]}."))
other = None if can else instead()
if other is not None:
    st.info(plain(f"{other.label} is shown instead. Choose another AFT-conv as A or B to prune that."))
    can = {"instead": other}
if not can:
    st.info("Neither model can be pruned. Choose an AFT-conv as A or B, e.g. one that ships: digits-entropy.")
else:
    side = state.current()["side"] if state.current()["side"] in can else next(iter(can))
    if len(can) > 1:
        words = {one: f"{one.upper()}: {entry.label}" for one, entry in can.items()}
        side = state.choose("Model", "side", words, few=True)
    with in_words():
        curve(can[side])
        st.subheader("At one k", anchor=False)
        at_one(can[side])
