"""The workspace of a visitor in Streamlit: read from the address, changed by widgets, one history entry a step."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import streamlit as st

from app.words import plain
from app.workspace import FIELDS, Workspace, read_address

_HELD, _WRITTEN, _SAID, _NOTES = "workspace", "written address", "said", "notes"


def opened() -> Workspace:
    """The workspace at the start of a page's run: of the address, where it was followed or gone back to.

    A choice on the page has written the address itself. A page that is reached by its link has an empty address: the
    visitor's choices stay, and are written into it.
    """
    held: Workspace = st.session_state.get(_HELD) or Workspace()
    query = {name: st.query_params[name] for name in st.query_params}
    written = st.session_state.get(_WRITTEN)
    if query and query != written:
        held, problems = read_address(query, held if written else None)
        st.session_state[_SAID] = problems
    st.session_state[_HELD] = held
    return held


def current() -> Workspace:
    """The workspace as it is now."""
    return st.session_state.get(_HELD) or Workspace()


def step(**chosen: Any) -> None:
    """Choose something: for callbacks of widgets and figures, and for what a page corrects."""
    st.session_state[_HELD] = current().step(**chosen)
    write()


def quiet(**chosen: Any) -> None:
    """Choose something without a step of history: it is in the address with the next one."""
    st.session_state[_HELD] = current().step(**chosen)


def correct(words: str, **chosen: Any) -> None:
    """Put right what cannot be, and say so; the address follows at the end of the run (`write`)."""
    st.session_state[_HELD] = current().step(**chosen)
    if words:
        say(words)


def say(words: str) -> None:
    """Keep words for the top of the page."""
    said = st.session_state.setdefault(_SAID, [])
    if words not in said:
        said.append(words)


def notes() -> None:
    """Where, at the top of a page, what had to be put right is said when it has run."""
    st.session_state[_NOTES] = st.container()


def finish() -> None:
    """End a page's run: say what had to be put right, and have the address whole."""
    place = st.session_state.pop(_NOTES, None)
    if place is not None:
        for words in st.session_state.pop(_SAID, []):
            place.warning(plain(words), icon=":material/edit:")
    write()


def write() -> None:
    """Write the whole workspace into the address, where it is not there already."""
    address = current().address()
    if {name: st.query_params[name] for name in st.query_params} != address:
        st.query_params.from_dict(address)
    st.session_state[_WRITTEN] = address


def widget_key(name: str) -> str:
    """Streamlit's key of the widget of a choice."""
    return f"choice {name}"


def bound(name: str, to_value: Callable[[Any], Any] = lambda value: value) -> Mapping[str, Any]:
    """`key` and `on_change` of a widget that makes a choice; `to_value` turns what the widget has into it."""
    key = widget_key(name)

    def chosen() -> None:
        value = st.session_state[key]
        if value is not None:
            step(**{name: to_value(value)})

    return {"key": key, "on_change": chosen}


def choose(label: str, name: str, options: Mapping[str, str] | Iterable[str], *, help: str = "", few: bool = False,
           placeholder: str = "") -> str:  # fmt: skip
    """A select box of a choice, or with `few` a row of buttons; options by value with their words."""
    words = dict(options) if isinstance(options, Mapping) else {one: one for one in options}
    key, now = widget_key(name), FIELDS[name].write(current()[name])
    st.session_state[key] = now if now in words else next(iter(words))
    show = words.__getitem__
    if few:
        st.segmented_control(label, list(words), format_func=show, required=True, help=help or None, **bound(name))
    else:
        st.selectbox(
            label, list(words), format_func=show, help=help or None, placeholder=placeholder or None, **bound(name)
        )
    return str(st.session_state[key])


def flag(label: str, name: str, *, help: str = "") -> bool:
    """A switch of a choice between yes and no."""
    key = widget_key(name)
    st.session_state[key] = current()[name] == "yes"
    return st.toggle(label, help=help or None, **bound(name, lambda on: "yes" if on else "no"))


def number(label: str, name: str, most: int, *, help: str = "") -> int:
    """A box for a number from 0 to `most`."""
    key = widget_key(name)
    st.session_state[key] = min(int(current()[name]), most)
    st.number_input(label, 0, most, step=1, help=help or None, **bound(name, int))
    return int(st.session_state[key])
