"""Analyses: both models' locality, matched heads, timing, and what any analysis with a page shows of one."""

from typing import Any

import streamlit as st

from app import bar, charts, loaders, state, trainings
from app.models import Entry
from app.waiting import awaited
from app.words import in_words, plain

BOTH = {
    "locality": "How local the heads of A and B are, beside random weights",
    "match": "Which head of B looks where a head of A does, against chance",
    "latency": "Which of A and B is faster, timed in turn",
    "evaluate": "Accuracy of A and B on test images",
    "field": "How far an output token of A and B sees, block by block, through residuals and MLPs",
}
OF_ONE = {
    "explain": "Whether position explains the heads of a model, and what edits of them cost",
    "learned": "How much of the maps is made by training",
    "qk": "How much of the logits of a ViT's heads is place, and how much content",
    "attribution": "Whether attributions of a model rest on its weights, and beat random pixels",
    "transfer": "Start an AFT-conv from a ViT's weights",
}
BATCH = 64
FEW = 16
FEW_HELP = f"On {FEW} test images; up to a minute for the larger models that ship."
MEASURES = ["correlation", "earth mover's distance"]


def show(name: str, sides: dict[str, Entry]) -> None:
    """One analysis."""
    space = state.current()
    first, second = sides.values()
    if name == "locality":
        sources = [[entry.source, entry.revision] for entry in dict.fromkeys((first, second))]
        arguments = {"sources": sources, "data": space["data"], "images": 64}
        awaited("locality", "Locality", arguments, _result("locality"))
    elif name == "match":
        pair = {"first": [first.source, first.revision], "second": [second.source, second.revision]}
        asked = {"data": space["data"], "images": space["images"], "draws": 99, "measures": MEASURES}
        awaited("match", "Pairing heads", {**pair, **asked}, _result("match"))
    elif name == "field":
        sources = [[entry.source, entry.revision] for entry in dict.fromkeys((first, second))]
        arguments = {"sources": sources, "data": space["data"], "images": FEW}
        awaited("field", "Receptive fields", arguments, _result("field"), button="Measure", help=FEW_HELP)
    elif name == "latency":
        _latency(first, second)
    elif name == "evaluate":
        for side, entry in sides.items():
            st.subheader(plain(f"{side.upper()}: {entry.label}"), anchor=False)
            with in_words():
                arguments = {"source": entry.source, "revision": entry.revision, "images": 1000}
                awaited("evaluate", f"Evaluating {entry.label}", arguments, _accuracy, key=f"evaluate {side}")
    else:
        side = state.choose("Of", "side", {one: f"{one.upper()}: {e.label}" for one, e in sides.items()}, few=True)
        _of_one(name, sides[side])


def _latency(first: Entry, second: Entry) -> None:
    st.caption(
        f"A batch of {BATCH} through A and B in turn, one thread, in a process of its own; the difference is paired by "
        "round. A machine that does other work meanwhile gets no verdict."
    )
    arguments = {"first": first.source, "second": second.source, "batch": BATCH}
    awaited("latency", "Timing", arguments, _timed, button="Measure", again="Measure again", key="latency")


def _timed(content: dict[str, Any], whole: bool) -> None:
    if whole:
        (st.warning if content["refused"] else st.success)(plain(content["verdict"]))
        st.caption(f"Other work used {content['others']:.2f} processors meanwhile.")
        _result("latency")(content, whole)


def _accuracy(content: dict[str, Any], whole: bool) -> None:
    if not whole:
        return
    low, high = content["interval"]
    st.metric(
        f"Accuracy on {content['images']} test images of {plain(content['data'])}",
        f"{100 * content['accuracy']:.2f} %", f"95 %: {100 * low:.2f} to {100 * high:.2f}", delta_color="off",
        delta_arrow="off",
    )  # fmt: skip
    st.table(
        [{"Class": plain(name), "Images": str(count), "Accuracy": f"{100 * share:.1f} %" if count else "–"}
         for name, count, share in content["by_class"]]
    )  # fmt: skip


def _of_one(name: str, entry: Entry) -> None:
    if name == "transfer":
        _transfer(entry)
        return
    data = "" if entry.data else state.current()["data"]
    arguments: dict[str, Any] = {"source": entry.source, "revision": entry.revision}
    if name == "explain":
        arguments |= {"data": data, "images": 128}
        awaited(
            "explain", f"Explaining {entry.label}", arguments, _result(name), button="Measure",
            help="Minutes for larger models: more and more heads by every edit, 128 images.",
            key=f"explain {entry.label}",
        )  # fmt: skip
        return
    if name == "qk":
        if entry.looks != "attention":
            st.info(plain(f"{entry.label} is no ViT: it has no queries and keys a head. Choose one as A or B."))
            return
        awaited("qk", f"Logits of {entry.label}", arguments | {"data": data, "images": BATCH}, _result(name),
                button="Measure", help=f"On {BATCH} test images.", key=f"qk {entry.label}")  # fmt: skip
        return
    if name == "attribution":
        awaited("attributions", f"Checking attributions of {entry.label}", arguments | {"images": FEW}, _result(name),
                button="Measure", help=FEW_HELP, key=f"attributions {entry.label}")  # fmt: skip
        return
    if name == "learned":
        awaited("learned", f"Learned share of {entry.label}", arguments, _result(name), key=f"learned {entry.label}")
        return
    title = f"{name} of {entry.label}"
    awaited("show", title, {"name": name, **arguments}, _result(name), key=title)


def _transfer(entry: Entry) -> None:
    if entry.looks != "attention":
        st.info(plain(f"{entry.label} is no ViT. Choose one as A or B: an AFT-conv can start from its weights."))
        return
    st.caption("An AFT-conv takes a ViT's values, MLPs and embeddings (Table 8); queries and keys stay behind.")
    recipes = [name for name in loaders.recipes() if name.endswith("-conv")]
    fit = f"{entry.data.partition(':')[0]}-conv"
    to = st.selectbox("Recipe of the AFT-conv", recipes, index=recipes.index(fit) if fit in recipes else 0)
    awaited(
        "transfer", f"Transfer of {entry.label} to {to}",
        {"source": entry.source, "revision": entry.revision, "to": to},
        lambda content, whole: _taken(content, entry, to) if whole else None, key=f"transfer {entry.label} {to}",
    )  # fmt: skip


def _taken(content: dict[str, Any], entry: Entry, to: str) -> None:
    """What was taken, and a run that starts from it."""
    charts.show_table(content["table"])
    st.subheader("Train it from here", anchor=False)
    columns = st.columns([3, 2, 1, 1], vertical_alignment="bottom")
    name = columns[0].text_input("Name", value=f"{entry.label.rpartition('/')[2]}-to-{to}", key="transfer name")
    biases = columns[1].selectbox(
        "Position biases", ["relative", "paper"], key="transfer biases",
        help="relative: from the ViT's relative attention; paper: fresh, as in Table 8.",
    )  # fmt: skip
    epochs = int(columns[2].number_input("Epochs", 1, 10_000, 10, key="transfer epochs"))
    seed = int(columns[3].number_input("Seed", 0, 10**6, 0, key="transfer seed"))
    words = trainings.transfer_words(entry.source, to, name, biases=biases, epochs=epochs, seed=seed)
    st.code("\n".join(" ".join(["aft-lens", *each]) for each in words), language="bash")
    if not trainings.may_write():
        st.caption("This server shows runs and starts none: use the commands in a terminal.")
    elif st.button("Start", type="primary", key="transfer start"):
        with in_words():
            trainings.begin(name, words)
            st.rerun(scope="app")
    if name in trainings.STARTED:
        st.success(plain(f"{name} has started: Training shows its curves, and stops it."))


def _result(name: str) -> Any:
    return lambda content, whole: charts.drawn(content, name, f"{name} of the chosen models")


sides = bar.page("Analyses", "What further analyses show of the two models; other packages can add to them.")
with in_words():
    added = loaders.pages()
    names = {**BOTH, **OF_ONE, **{name: words for name, words in added.items() if name not in BOTH}}
    chosen = state.current()["analysis"]
    if chosen and chosen not in names:
        state.correct(f"analysis must be one of {', '.join(names)}, the address says {chosen}", analysis="")
    chosen = state.choose("Analysis", "analysis", {name: f"{name}: {words}" for name, words in names.items()})
    show(chosen, sides)
