"""The Streamlit app's entry: page settings and navigation. Run it with `aft-lens app`."""

from pathlib import Path

import pandas  # noqa: F401  whole before Plotly looks at it, which Streamlit imports for another visitor at that time
import streamlit as st
from PIL import Image

from app import state
from app.charts import WIDE
from app.words import in_words

# Not named pages/: Streamlit would serve such a folder itself, bare, to a first visitor who follows a link.
PAGES = Path(__file__).parent / "screens"
STYLE = """<style>
.block-container {padding: 2.6rem 1.5rem 3rem; max-width: 1600px;}
h1 {font-size: 1.8rem !important; padding-bottom: 0 !important;}
[data-testid="stMetricValue"] {font-size: 1.5rem;}
[data-testid="stTable"], [class*="st-key-wide-"] {overflow-x: auto;}
[class*="st-key-wide-"] > div {min-width: WIDEpx;}
@media (max-width: 640px) {
    .block-container {padding: 2.6rem 0.75rem 3rem;}
    [data-testid="stTable"] :is(td, th) > div {width: max-content !important; max-width: 15rem !important;}
}
</style>""".replace("WIDE", str(WIDE))


def icon() -> Image.Image:
    """A window of 5 × 5 offsets with one kept: drawn here, because Streamlit fetches named icons from the network."""
    window = Image.new("RGB", (5, 5), "#dfe7f0")
    window.putpixel((3, 1), (210, 96, 63))
    window.putpixel((2, 2), (47, 109, 179))
    return window.resize((60, 60), Image.Resampling.NEAREST)


st.set_page_config(page_title="AFT Lens", page_icon=icon(), layout="wide")
st.html(STYLE)
page = st.navigation(
    [
        st.Page(PAGES / "overview.py", title="Overview", icon=":material/home:", default=True),
        st.Page(PAGES / "compare.py", title="Compare", icon=":material/compare:"),
        st.Page(PAGES / "attention.py", title="Attention", icon=":material/visibility:"),
        st.Page(PAGES / "keys.py", title="Keys", icon=":material/key:"),
        st.Page(PAGES / "decoders.py", title="Decoders", icon=":material/stylus_note:"),
        st.Page(PAGES / "knockout.py", title="Knock-out", icon=":material/backspace:"),
        st.Page(PAGES / "pruning.py", title="Pruning", icon=":material/content_cut:"),
        st.Page(PAGES / "training.py", title="Training", icon=":material/show_chart:"),
        st.Page(PAGES / "analyses.py", title="Analyses", icon=":material/query_stats:"),
    ],
    position="top",
)
try:
    with in_words():
        page.run()
finally:
    state.finish()
