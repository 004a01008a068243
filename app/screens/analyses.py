"""Analyses: what any analysis with a page, also one of another package, shows of a checkpoint."""

import streamlit as st

from app import loaders
from app.commands import command_words, pages
from app.widgets import chart, entries_or_stop, heading, in_words, pick, show_table

heading("Analyses", "What further analyses show of one checkpoint; other packages can add to them.")
entries = entries_or_stop()
left, right = st.columns([2, 3], gap="medium")
with left:
    names = pages()
    name = st.selectbox("Analysis", names, key="analysis", bind="query-params") or names[0]
    st.caption(command_words()[name])
with right:
    entry = pick("Checkpoint", "of", entries, prefer=("digits-single", "digits-conv"))
with in_words():
    result = loaders.shown(name, str(entry.path), entry.revision)
    table = result.table()
    chart(result.interactive(), "result", f"{name} of {entry.label}")
    show_table(table)
    for words in (table.title, table.note):
        if words:
            st.text(words)
    st.code(f"aft-lens {name} {entry.path}", language="bash")
