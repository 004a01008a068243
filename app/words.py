"""Text on pages: escaped, errors in sentences, terms explained."""

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import streamlit as st

from aft_lens.errors import answer, printable, report_defect
from app.back.link import Defect

DEFECT = "This is a defect of the app, not your input's fault. Whoever runs it finds it in the server's log."
TERMS: Mapping[str, str] = {
    "exp(w) − 1": "What a learned position bias w adds to a source's weight: 0 leaves it the pooled weight that every "
    "position has, 1 doubles it, −1 takes it away (Eq. 3, Fig. 6–8 of the AFT paper).",
    "n × attention − 1": "Attention averaged over images and targets by offset, relative to a uniform share of n "
    "positions: 0 is uniform, the same zero as exp(w) − 1.",
    "offset": "Source minus target, (Δy, Δx) in patches: Δx to the right, Δy down.",
    "effective attention": "The weight with which a target reads each source: exp(K + w) over its sum for AFT, a row "
    "of softmax attention for a ViT. It sums to 1 over all sources.",
    "learned": "1 − |correlation| of a head's raw bias with where it started. Near 0 the map is the random draw.",
    "k": "Offsets that each head keeps; all others have w = 0, the pooled weight.",
}


def heading(title: str, text: str) -> None:
    """A page's title and a line on what it shows."""
    st.title(title, anchor=False)
    st.caption(text)


@contextmanager
def in_words() -> Iterator[None]:
    """Show a failure as a sentence; of a defect the traceback is kept beside the server, not shown."""
    try:
        yield
    except Exception as error:  # the last border, as in `analyses.answered.answered`
        words = answer(error) if not isinstance(error, Defect) else ""
        if not words:
            print(str(error) if isinstance(error, Defect) else report_defect(error), file=sys.stderr, flush=True)
            words = DEFECT
        st.error(plain(words), icon=":material/error:")


def plain(text: object) -> str:
    """Text as it is: what Streamlit would draw as Markdown, a link, an image or an icon stands for itself."""
    escaped = re.sub(r"([\\`*_\[\]<~$&]|:(?=\S)|^\s*[#+>=-])", r"\\\1", printable(str(text)), flags=re.MULTILINE)
    return re.sub(r"(?i)(https?|ftp|mailto|www|xmpp)(?=\\:|\.)", "\\1\u2060", escaped).replace("@", "\u2060@")


def marked(given: str, drawn: str) -> str:
    """A beginning, with what was drawn in bold: a hair's space where none is, as bold may not begin within a word."""
    bold = drawn.strip()
    gap = " " if given[-1:].isspace() or drawn[:1].isspace() else "\u200a"
    return f"{plain(given.rstrip())}{gap}**{plain(bold)}**" if bold else plain(given)
