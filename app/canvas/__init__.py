"""Maps by layer and head in the browser: values are sent once, clicks answered there, and only indices travel."""

import base64
import hashlib
import html
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from analyses.maps.head_maps import HeadMaps

_FOLDER = Path(__file__).parent
_SCRIPT = (_FOLDER / "maps.js").read_text(encoding="utf-8")
_STORE = _SCRIPT.replace("export default function view", "function view") + (
    "\nwindow.__aftLensView = view;\nexport default ({ data }) => keep(data);\n"
)
_VIEW = """export default (component) => {
  let end = () => {}, tries = 0;
  const start = () => {
    if (window.__aftLensView) end = window.__aftLensView(component) ?? end;
    else if (tries++ < 600) setTimeout(start, 25);
  };
  start();
  return () => end();
};
"""
_COLOURS = "--st-primary-color: #2f6db3; --st-border-color: #d5dbe1; --st-background-color: #ffffff;"
"""Those that Streamlit gives its pages, for a page of its own."""
_PAGE = """<div class="maps"><div><div class="panes"></div><div class="pointer"></div><div class="scale"></div>
<details><summary>As a table</summary><div></div></details></div>
<div class="reading"><h4></h4><div class="sides"></div></div>
<div class="live" aria-live="polite"></div></div>"""


@dataclass(frozen=True)
class Pane:
    """A model's maps as a pane shows them."""

    maps: HeadMaps
    title: str
    tiles: Sequence[tuple[int, int]]
    """(layer, head) of the maps drawn, in this order; heads by their numbers in the model."""
    by_layer: bool = True
    """Whether the tiles are whole rows of layers; else they flow."""
    words: str = ""
    image: str = ""
    """Address of a picture to lay enlarged maps over."""
    sums: Sequence[float] | None = None
    """Of each tile, where it is to be read."""
    target: tuple[int, int] | bool | None = False
    """A place that is marked in every map; False marks the chosen cell."""


def packed(pane: Pane) -> dict[str, Any]:
    """What is kept in the page: half-precision values over each map's largest |value|, which is sent in full."""
    maps = pane.maps
    values = np.stack([maps.values[layer, head] for layer, head in pane.tiles]).astype(np.float64)
    peaks = np.where(np.isfinite(values), np.abs(values), 0.0).max((1, 2))
    peaks[peaks == 0] = 1.0
    halves = (values / peaks[:, None, None]).astype("<f2").tobytes()
    rows, columns = maps.frame
    content = {
        "values": base64.b64encode(halves).decode(), "peaks": [float(f"{peak:.6g}") for peak in peaks],
        "tiles": [[layer, head, int(maps.idle is not None and bool(maps.idle[layer, head]))]
                  for layer, head in pane.tiles],
        "rows": rows, "columns": columns, "layers": maps.layers, "heads": maps.heads, "unit": maps.unit,
        "by_offset": maps.by_offset, "signed": maps.signed, "column": maps.column, "by_layer": pane.by_layer,
        "image": pane.image,
    }  # fmt: skip
    return {"hash": hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16], **content}


def whole_page(panes: Sequence[Pane], cell: dict[str, int], *, scale: str, bound: float, pick: str = "cell") -> str:
    """Panes as an HTML page that needs nothing beside it: the same maps, which answer clicks and keys."""
    contents = [packed(pane) for pane in panes]
    data = _data(panes, [one["hash"] for one in contents], cell, scale=scale, bound=bound, pick=pick)
    script = _SCRIPT.replace("export default ", "").replace("export ", "")
    held, shown = (json.dumps(one).replace("</", "<\\/") for one in (contents, data))
    style = (_FOLDER / "maps.css").read_text(encoding="utf-8")
    title = html.escape(", ".join(pane.title for pane in panes))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<style>:root {{{_COLOURS}}} body {{margin: 1.5rem; font-family: sans-serif}}\n{style}</style>{_PAGE}"
        f'<script type="module">\n{script}\nfor (const one of {held}) keep(one);\n'
        f"view({{ data: {shown}, parentElement: document.body, setStateValue() {{}} }});\n</script></html>"
    )


@st.cache_resource
def _components() -> tuple[Any, Any]:
    """Both components, registered once."""
    style = (_FOLDER / "maps.css").read_text(encoding="utf-8")
    return (
        st.components.v2.component("aft_lens_store", js=_STORE),
        st.components.v2.component("aft_lens_maps", html=_PAGE, css=style, js=_VIEW),
    )


def keep(contents: Sequence[dict[str, Any]], key: str) -> None:
    """Send what `packed` made to the page, outside of what runs again on a click."""
    store, _ = _components()
    for number, content in enumerate(contents):
        store(data=content, key=f"{key} values {number}", height=1)


def show(
    panes: Sequence[Pane],
    names: Sequence[str],
    key: str,
    cell: dict[str, int],
    on_cell: Callable[[dict[str, Any]], None],
    *,
    scale: str,
    bound: float,
    pick: str = "cell",
    target: tuple[int, int] | None = None,
    pairs: Sequence[Sequence[float]] = (),
) -> None:
    """Draw panes whose values are kept as `names`, the hashes of `packed`.

    A click calls `on_cell` with side, layer, head, y, x and where ("tile" or "map").

    With `pick` "target" every map is of one target, which a click into an enlarged map moves.
    """
    _, view = _components()
    data = _data(panes, names, cell, scale=scale, bound=bound, pick=pick, target=target, pairs=pairs)

    def chosen() -> None:
        got = st.session_state[key].get("cell")
        if isinstance(got, dict):
            on_cell(got)

    view(data=data, key=key, on_cell_change=chosen)


def _data(
    panes: Sequence[Pane],
    names: Sequence[str],
    cell: dict[str, int],
    *,
    scale: str,
    bound: float,
    pick: str = "cell",
    target: tuple[int, int] | None = None,
    pairs: Sequence[Sequence[float]] = (),
) -> dict[str, Any]:
    """What `view` draws."""
    return {
        "panes": [
            {"hash": name, "title": pane.title, "words": pane.words,
             **({} if pane.sums is None else {"sums": [float(f"{one:.4g}") for one in pane.sums]}),
             **({} if pane.target is False else {"target": pane.target})}
            for pane, name in zip(panes, names, strict=True)
        ],
        "cell": cell, "scale": scale, "bound": float(f"{bound:.6g}"), "pick": pick,
        "target": list(target) if target is not None else None, "pairs": [list(pair) for pair in pairs],
    }  # fmt: skip
