"""Parts of a page that are drawn again by themselves."""

from collections.abc import Callable
from typing import Any

import streamlit as st


def part(draw: Callable[..., Any], *arguments: Any, every: float | None = None) -> None:
    """Draw a part now, when something in it is used, and again after each `every` seconds.

    It has a container of the page's for a place. What a fragment has drawn and the browser has not had yet, Streamlit
    drops when the fragment runs again, the fragment's own container too: with none of the page's around it, all that
    follows lies at places that the browser does not know, and the whole page goes blank.
    """
    with st.container():
        st.fragment(draw, run_every=every)(*arguments)
