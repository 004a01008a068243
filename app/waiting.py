"""Jobs on pages: their progress, what they have so far, cancel, and what they leave to take along."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import streamlit as st
from streamlit.runtime import exists, get_instance
from streamlit.runtime.scriptrunner import get_script_run_ctx

from aft_lens.errors import InputError
from app import state
from app.back import shelf
from app.back.jobs import CANCELLED, DONE, FAILED, JOBS, Job
from app.parts import part
from app.words import plain

AT_ONCE = 1.2
"""Seconds that a page waits for a quick job before it shows a bar."""
POLL = 0.7
Draw = Callable[[dict[str, Any], bool], None]
"""Draws a job's result; False while it is not whole."""


def visitor() -> str:
    """The session that asks."""
    context = get_script_run_ctx(suppress_warning=True)
    return context.session_id if context is not None else ""


def is_there(who: str) -> bool:
    """Whether a visitor's browser is still connected."""
    return not exists() or get_instance().is_active_session(who)


JOBS.is_there = is_there


def job_of(
    kind: str, title: str, arguments: Mapping[str, Any], *, start: bool = True, again: bool = False
) -> Job | None:
    """The job of these arguments, which has ended if it takes a moment only; None if it is not to be started."""
    job = JOBS.ask(kind, title, arguments, visitor=visitor(), start=start or again, again=again)
    if job is not None and job.active and job.seconds < AT_ONCE:
        end = time.monotonic() + AT_ONCE
        while job.active and time.monotonic() < end:
            time.sleep(0.02)
    return job


def awaited(
    kind: str, title: str, arguments: Mapping[str, Any], draw: Draw, *, button: str = "", help: str = "", key: str = "",
    again: str = "",
) -> None:  # fmt: skip
    """Show a job of these arguments: what it has, how far it is, and how to cancel or repeat it.

    With `button` it starts when that is pressed, else at once; `again` is the button of one that may end otherwise
    another time. A page that shows it again finds it again.
    """
    key = f"{key or kind} job"
    job = job_of(kind, title, arguments, start=not button)
    if job is None:
        st.button(button, key=f"{key} start", help=help or None, type="primary", on_click=_begin,
                  args=(kind, title, arguments))  # fmt: skip
        return
    _follow(job, draw, key, again)


def _follow(job: Job, draw: Draw, key: str, again: str) -> None:
    """A part that draws a job, once more each time while it goes on."""

    def follow(was_active: bool) -> None:
        now = JOBS.ask(job.kind, job.title, job.arguments, visitor=visitor(), start=False) or job
        repeat: Any = {"on_click": _begin, "args": (now.kind, now.title, now.arguments)}
        if now.active:
            columns = st.columns([5, 1], vertical_alignment="center")
            words = f"{now.title}: {now.said or now.state}, {now.seconds:.0f} s"
            columns[0].progress(min(max(now.share, 0.0), 1.0), plain(words))
            columns[1].button("Cancel", key=f"{key} cancel", on_click=JOBS.cancel, args=(now,), width="stretch")
        elif now.state in (FAILED, CANCELLED):
            said = st.warning if now.state == CANCELLED else st.error
            said(plain(f"{now.title}: {now.said or now.state}"))
            st.button("Try again", key=f"{key} again", **repeat)
        if now.result is not None:
            draw(now.result, now.state == DONE)
            if now.state == DONE:
                take_along(now, key)
                if again:
                    st.button(again, key=f"{key} again", **repeat)
        if now.active != was_active:
            st.rerun(scope="app")

    part(follow, job.active, every=POLL if job.active else None)


def _begin(kind: str, title: str, arguments: Mapping[str, Any]) -> None:
    """Start a job, once more if it has ended; words on the page where there is no room for it."""
    try:
        JOBS.ask(kind, title, arguments, visitor=visitor(), again=True)
    except InputError as error:
        state.say(str(error))


def take_along(job: Job, key: str) -> None:
    """Files of a result, the command that makes it, and a place in the report."""
    with st.popover("Take it along", icon=":material/download:"):
        files = shelf.files(job.place)
        if files:
            with st.container(horizontal=True):
                for file in files:
                    st.download_button(
                        file.suffix[1:].upper(), data=file.read_bytes, file_name=file.name, key=f"{key} {file.name}",
                        on_click="ignore", help=file.name,
                    )  # fmt: skip
        else:
            st.caption("Files are drawn after the result; open this again in a moment.")
        if job.result:
            show_lines(job.result.get("command", []), job.result.get("python", ""))
        report: list[tuple[str, str]] = st.session_state.setdefault("report", [])
        item = (job.title, str(job.place))
        if st.button("Add to report", key=f"{key} report", disabled=item in report):
            report.append(item)
            st.rerun(scope="fragment")
        if item in report:
            st.caption(f"In the report, {len(report)} in all; Overview has the folder.")


def show_lines(command: Sequence[str], python: str) -> None:
    """The command and the Python that make something, to be copied."""
    if command:
        st.code(" ".join(map(_quoted, command)), language="bash")
    if python:
        st.code(python, language="python")


def _quoted(word: str) -> str:
    return word if word and all(char.isalnum() or char in "-_./:=+" for char in word) else f"'{word}'"


def result_files(place: str) -> list[Path]:
    """Files of a result in the report."""
    return shelf.files(Path(place))
