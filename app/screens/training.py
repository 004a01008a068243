"""Training: curves of runs over each other, how their biases grew, and runs to start and stop."""

from pathlib import Path

import streamlit as st

from app import canvas, charts, loaders, state, trainings
from app.canvas import Pane
from app.maps import Looks
from app.parts import part
from app.places import roots
from app.runs import Run, describe, find_runs, headline, read_rows
from app.words import heading, in_words, plain

POLL = 2.0
PLAY = 0.8
"""Seconds an epoch is shown while the scrubber plays."""
TRAINED_ON = (
    "trains on its validation images as well (data.held_out false): their curves say how far it fits what it has seen, "
    "and stand for no held-out accuracy. That is the test accuracy alone, measured once at the end."
)
"""Of a run without held-out images."""


def choose(runs: dict[str, Run]) -> list[Run]:
    """The chosen runs, the first one where none is."""
    space = state.current()
    unknown = [name for name in space["runs"] if name not in runs]
    if unknown:
        state.correct(f"runs must be among those listed, the address says {', '.join(unknown)}",
                      runs=tuple(name for name in space["runs"] if name in runs))  # fmt: skip
    chosen = state.current()["runs"] or (next(iter(runs)),)
    if not state.current()["runs"]:
        state.correct("", runs=chosen)
    key = state.widget_key("runs")
    st.session_state[key] = list(chosen)
    st.multiselect(
        "Runs", list(runs), format_func=lambda one: f"{one} (in progress)" if runs[one].in_progress else one,
        help="Several are drawn over each other.", **state.bound("runs", tuple),
    )  # fmt: skip
    return [runs[name] for name in chosen]


def found_again(known: set[tuple[str, bool]]) -> None:
    """Look for runs that began or ended since."""
    now = {(run.label, run.in_progress) for run in find_runs(roots()).values()}
    if now != known:
        st.rerun(scope="app")


def curves(chosen: list[Run]) -> None:
    """Numbers and curves as their files are now."""
    good = [run for run in chosen if not run.problem]
    for run in chosen:
        if run.problem:
            st.warning(plain(f"{run.path} cannot be shown: {run.problem}"))
    going = any(run.in_progress for run in good)

    def draw() -> None:
        with in_words():
            now = {run.label: describe(run.label, run.path) for run in good}
            rows = {run.label: read_rows(run.path) if run.path.is_dir() else [] for run in good}
            for label, run in now.items():
                if run.in_progress and run.epochs and rows[label]:
                    done = int(rows[label][-1]["epoch"]) + 1
                    st.progress(min(1.0, done / run.epochs), f"{plain(label)}: epoch {done} of {run.epochs}")
            whole = {label: each for label, each in rows.items() if any(len(row) > 1 for row in each)}
            for label in rows.keys() - whole.keys():
                st.info(plain(f"{label}: the first epoch has not ended yet; its numbers will appear here."))
            if not whole:
                return
            view = charts.training_view()
            if len(whole) == 1:
                label, only = next(iter(whole.items()))
                run = now[label]
                shown = headline(only, run.epochs, held_out=run.held_out)
                for column, (name, text) in zip(st.columns(4), shown, strict=False):
                    column.metric(plain(name), text)
            for label in whole:
                if not now[label].held_out:
                    st.caption(plain(f"{label} {TRAINED_ON}"))
            panels = view.panel_columns([row for each in whole.values() for row in each])
            for half, column in enumerate(st.columns(2)[: len(panels)]):
                figure = (
                    view.curves(only, epochs=run.epochs, width=500, half=half, held_out=run.held_out)
                    if len(whole) == 1
                    else view.overlaid(whole, width=500, half=half)
                )  # fmt: skip
                with column:
                    charts.chart(figure, f"curves {half}", f"Curves of {', '.join(whole)}")

    part(draw, every=POLL if going else None)


def scrubber(run: Run) -> None:
    """The position biases after each epoch that kept them, coloured alike, with a play button."""
    kept = loaders.snapshots(str(run.path), run.written, run.single)
    if len(kept) < 2:
        return
    st.subheader("How the position biases grew", anchor=False)
    epochs = sorted(kept)
    panes = {epoch: _pane(kept[epoch], run, epoch) for epoch in epochs}
    contents = {epoch: canvas.packed(pane) for epoch, pane in panes.items()}
    bound = max(looks.maps.bound() for looks in kept.values()) or 1.0
    playing = st.toggle("Play", key="play")

    def draw() -> None:
        now = state.current()["epoch"]
        now = min(epochs, key=lambda epoch: abs(epoch - now))
        if playing:
            now = epochs[(epochs.index(now) + 1) % len(epochs)]
            st.session_state["epoch played"] = now
        key = state.widget_key("epoch")
        st.session_state[key] = now
        st.select_slider("After epoch", epochs, **state.bound("epoch", int))
        if playing:
            state.quiet(epoch=now)
        space = state.current()
        cell = {
            "side": 0,
            "layer": space["layer"],
            "head": space["head"],
            "y": space["offset"][0],
            "x": space["offset"][1],
        }
        canvas.show([panes[now]], [contents[now]["hash"]], "epochs", cell, _chosen, scale="shared", bound=bound)

    part(draw, every=PLAY if playing else None)
    canvas.keep(list(contents.values()), "epochs")


def _pane(looks: Looks, run: Run, epoch: int) -> Pane:
    tiles = [(n, h) for n in range(looks.maps.layers) for h in range(min(looks.maps.heads, 16))]
    return Pane(looks.maps, f"{run.label} after epoch {epoch}", tiles)


def _chosen(cell: dict[str, int]) -> None:
    state.step(layer=int(cell["layer"]), head=int(cell["head"]), offset=(int(cell["y"]), int(cell["x"])))


def begin(runs: dict[str, Run]) -> None:
    """Start a run, and stop those started here."""
    with st.expander("Start a run", expanded=not runs):
        recipes = loaders.recipes()
        columns = st.columns([3, 3, 1, 1], vertical_alignment="bottom")
        recipe = columns[0].selectbox("Recipe", recipes, index=recipes.index("digits-single"))
        name = columns[1].text_input("Name", value=f"{recipe}-app")
        epochs = int(columns[2].number_input("Epochs", 1, 10_000, 10))
        seed = int(columns[3].number_input("Seed", 0, 10**6, 0))
        words = trainings.train_words(recipe, name, epochs=epochs, seed=seed)
        st.code(" ".join(["aft-lens", *words]), language="bash")
        if not trainings.may_write():
            st.caption("This server shows runs and starts none: use the command in a terminal.")
        elif st.button("Start", type="primary"):
            with in_words():
                trainings.begin(name, [words])
                st.rerun()
    for training in trainings.STARTED.values():
        columns = st.columns([5, 1], vertical_alignment="center")
        how = "goes on" if training.runs else f"ended with status {training.process.returncode}"
        columns[0].caption(plain(f"{training.name}: {how}. {training.said.splitlines()[-1] if training.said else ''}"))
        if training.runs:
            columns[1].button("Stop", key=f"stop {training.name}", on_click=trainings.stop, args=(training.name,))


state.opened()
heading("Training", "Loss, accuracy and sparsity by epoch. Runs appear by themselves, also in their first epoch.")
state.notes()
with in_words():
    runs = find_runs([Path(root) for root in roots()])
    begin(runs)
    part(found_again, {(run.label, run.in_progress) for run in runs.values()}, every=POLL)
    if not runs:
        st.info("**There are no runs yet.** Start one here or in a terminal; it appears here by itself:")
        st.code("aft-lens train --recipe digits-single", language="bash")
        st.stop()
    chosen = choose(runs)
    curves(chosen)
    for run in chosen[:1]:
        if run.path.is_dir() and not run.problem:
            scrubber(run)
