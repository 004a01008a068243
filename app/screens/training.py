"""Training: the curves of a run, refreshed while it is in progress."""

import streamlit as st

from app import loaders, panels
from app.runs import describe, find_runs, headline, read_rows
from app.views.training import curves
from app.widgets import chart, heading, in_words, plain

heading("Training", "Loss, accuracy and sparsity by epoch. A run in progress is read again every two seconds.")
runs = find_runs(loaders.roots())
if not runs:
    st.info("**There are no runs yet.** Start one in another terminal; it appears here after its first epoch:")
    st.code("aft-lens train --recipe digits-single", language="bash")
    st.stop()
labels = list(runs)
chosen = st.selectbox(
    "Run",
    labels,
    index=0,
    key="run",
    bind="query-params",
    format_func=lambda label: f"{label} (in progress)" if runs[label].in_progress else label,
)
run = runs[chosen or labels[0]]
if run.problem:
    st.warning(plain(f"{run.path} cannot be shown: {run.problem}"))
    st.stop()


@st.fragment(run_every=2.0 if run.in_progress else None)
def progress() -> None:
    """Draw the run as its files are now."""
    with in_words():
        now, rows = describe(run.label, run.path), read_rows(run.path)
        if not any(len(row) > 1 for row in rows):
            st.info("The first epoch has not ended yet: its numbers will appear here.")
            return
        done = int(rows[-1]["epoch"]) + 1
        if now.in_progress and now.epochs:
            st.progress(min(1.0, done / now.epochs), f"in progress: epoch {done} of {now.epochs}")
        for column, (name, text) in zip(st.columns(4), headline(rows, now.epochs), strict=False):
            column.metric(plain(name), text)
        chart(curves(rows, epochs=now.epochs), "curves", f"Curves of the run {run.label}")
        if run.in_progress and not now.in_progress:
            st.rerun()


progress()
with in_words():
    panels.snapshots(run)
