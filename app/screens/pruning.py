"""Pruning: cut every head of an AFT-conv to k offsets and measure what that costs and saves."""

import math
from typing import Any

import streamlit as st

from analyses.pruning import CRITERIA, Rung
from app import loaders
from app.views import offsets
from app.widgets import chart, entries_or_stop, heading, in_words, pick, show_table

QUICK = [name for name in CRITERIA if name != "exact"]
"""Criteria that answer while one waits: "exact" runs the model once an offset."""


PLAIN: Any = {"delta_color": "off", "delta_arrow": "off"}
"""A change that is neither good nor bad: most are within their intervals."""


def _change(row: Rung) -> str:
    """Accuracy less the dense model's on the same images, in points, with its 95 % interval."""
    low, high = row.difference_interval
    return f"{100 * row.difference:+.2f} points ({100 * low:+.2f} to {100 * high:+.2f})"


def _median(row: Rung) -> float:
    """Milliseconds of a batch."""
    return row.latency.median_ms if row.latency is not None else math.nan


heading(
    "Pruning",
    "Every head keeps k offsets; the layer becomes pooling and indexing, with the same outputs as the "
    "masked convolution.",
)
entries = {label: entry for label, entry in entries_or_stop("offset").items() if not entry.pruned}
if not entries:
    st.info("Every AFT-conv checkpoint here is pruned already. Train one: `aft-lens train --recipe digits-single`")
    st.stop()
left, middle, right = st.columns([3, 2, 3], gap="medium")
with left:
    entry = pick("Model", "model", entries, prefer=("digits-single", "digits-entropy"))
with middle:
    criterion = st.selectbox("Keep by", QUICK, key="by", bind="query-params")
    chosen = CRITERIA[str(criterion)]
    st.caption(f"control: {chosen.words}" if chosen.control else chosen.words)
with right:
    keep = st.slider("Offsets kept a head (k)", 0, min(entry.window**2, 25), 1, key="keep", bind="query-params")
place = st.empty()
place.empty()  # numbers of other settings must not stay while these are measured
with in_words(), place.container():
    result = loaders.pruned(str(entry.path), entry.revision, keep, str(criterion))
    dense, indexed = result.rows[0], result.rows[-1]
    columns = st.columns(4)
    columns[0].metric(
        "Accuracy, indexed",
        f"{indexed.accuracy:.1%}",
        _change(indexed),
        **PLAIN,
    )
    columns[1].metric("max |Δlogit| to masked", f"{result.max_logit_difference:.1e}")
    columns[2].metric(
        "Size",
        f"{indexed.bytes / 1e3:,.0f} kB",
        f"{indexed.bytes / dense.bytes - 1:+.1%}",
        **PLAIN,
    )
    columns[3].metric(
        "Latency",
        f"{_median(indexed):.1f} ms",
        f"{_median(indexed) - _median(dense):+.1f} ms",
        **PLAIN,
    )
    chart(result.interactive(), "ladder", "Accuracy, size and latency of the dense, masked and indexed model")
    show_table(result.table())
    if result.unsure():
        st.caption(result.unsure())
    st.caption(
        f"Measured here on {result.images} test images; latency is one forward pass of {loaders.BATCH} images on the "
        "CPU, the models taking turns: the median with its quartiles. |Δlogit| to parent is what cutting changed, to "
        "masked the parity of pure indexing. Differences are to the dense model on the same images. Brackets: 95 % "
        "bootstrap intervals over images."
    )
    st.subheader("Where the kept offsets are", anchor=False)
    st.caption(
        "Δx to the right, Δy down, in patches; a larger dot is kept by more heads of its layer, blue is the position "
        "itself."
    )
    chart(offsets.kept_offsets(result.offsets()), "offsets", "Kept offsets by layer")
    st.code(f"aft-lens prune {entry.path} --keep {keep} --criterion {criterion}", language="bash")
