"""Curves of a run, in progress or finished, from the rows of its metrics."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analyses import theme

Rows = Sequence[Mapping[str, float]]
PANELS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("Loss", "nats", ("_loss",)),
    ("Accuracy", "%", ("train_accuracy", "val_accuracy", "test_accuracy")),
    ("Entropy of the position biases", "nats", ("entropy/",)),
    ("Accuracy, validation", "%", ("soft_accuracy", "hard_accuracy")),
    ("First less second offset", "w", ("margin",)),
    ("Heads that changed their offset", "since the epoch before", ("switches",)),
    ("Wasted heads", "heads", ("duplicate", "centre_only")),
    ("Probability of the chosen offset", "softmax of w", ("confidence",)),
    ("Temperature", "τ", ("temperature",)),
    ("Learning rate", "", ("lr", "learning_rate")),
)
"""(title, unit, what a column's name contains) of each panel, in order of importance."""


def panel_columns(rows: Rows) -> list[tuple[str, str, list[str]]]:
    """(title, unit, columns) of every panel that the rows have numbers for."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    panels, used = [], set()
    for title, unit, words in PANELS:
        found = [c for c in columns if c not in used and any(word in c.lower() for word in words)]
        used.update(found)
        if found:
            panels.append((title, unit, found))
    return panels


def curves(
    rows: Rows, *, epochs: int | None = None, width: int = 1000, half: int | None = None, held_out: bool = True
) -> go.Figure:
    """One panel a quantity over the epochs: training and validation together, layers as shades of one colour.

    `epochs` is how many the run will have, if known: the axis then shows what is still to come. `half` 0 or 1 draws
    every second panel alone, for two figures beside each other that a narrow page stacks. Without `held_out` the run
    trains on its validation images, and their curve is called so. Raises ValueError where there are no rows.
    """
    if not rows:
        raise ValueError("rows must hold at least one epoch, got none; wait for the first epoch to end")
    panels = panel_columns(rows)[half :: 1 if half is None else 2]
    columns = 2 if width >= 700 else 1
    lines = -(-len(panels) // columns)
    titles = [_title(*panel) for panel in panels]
    figure = make_subplots(
        lines, columns, subplot_titles=titles, horizontal_spacing=0.09, vertical_spacing=0.22 / max(lines, 1)
    )
    for i, (_, unit, names) in enumerate(panels):
        where = {"row": i // columns + 1, "col": i % columns + 1}
        scale = 100.0 if unit == "%" else 1.0
        for j, name in enumerate(names):
            points = [(row.get("epoch", n), row[name] * scale) for n, row in enumerate(rows) if name in row]
            figure.add_trace(_line(name, points, j, len(names)), **where)
    second = "held out" if held_out else "validation, trained on"
    for name, color in (("training", theme.SERIES[0]), (second, theme.SERIES[1])):
        line = {"color": color, "width": 2}
        figure.add_trace(go.Scatter(x=[None], y=[None], mode="lines", line=line, name=name, showlegend=True))
    legend = {"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yref": "container", "yanchor": "top"}
    theme.layout(theme.axes(figure), height=80 + 230 * lines, hovermode="x unified", legend=legend)
    figure.update_layout(margin={"l": 50, "r": 20, "t": 64, "b": 44})
    figure.update_annotations(font={"size": 14 if width >= 700 else 12, "color": theme.INK})
    figure.update_xaxes(range=[-0.3, max(epochs or 1, len(rows)) - 0.7], showgrid=False, zeroline=False)
    figure.update_yaxes(rangemode="tozero")
    for place in range(max(0, len(panels) - columns), len(panels)):
        figure.update_xaxes(title={"text": "epoch", "standoff": 4}, row=place // columns + 1, col=place % columns + 1)
    return figure


def overlaid(runs: Mapping[str, Rows], *, width: int = 1000, half: int | None = None) -> go.Figure:
    """The curves of several runs over each other: a colour a run, training dotted, held out drawn through.

    Numbers by layer are left out: their mean stands for them. `half` is as in `curves`. Raises ValueError where no run
    has an epoch.
    """
    every = [row for rows in runs.values() for row in rows]
    if not every:
        raise ValueError("runs must hold at least one epoch, got none; wait for the first epoch to end")
    found = [
        (title, unit, [name for name in names if "layer" not in name]) for title, unit, names in panel_columns(every)
    ]
    panels = [panel for panel in found if panel[2]][half :: 1 if half is None else 2]
    columns = 2 if width >= 700 else 1
    lines = -(-len(panels) // columns)
    figure = make_subplots(
        lines, columns, subplot_titles=[f"{title} ({unit})" if unit else title for title, unit, _ in panels],
        horizontal_spacing=0.09, vertical_spacing=0.22 / max(lines, 1),
    )  # fmt: skip
    for place, (_, unit, names) in enumerate(panels):
        for number, (label, rows) in enumerate(runs.items()):
            for name in names:
                points = [(row["epoch"], row[name] * (100.0 if unit == "%" else 1.0)) for row in rows if name in row]
                if points:
                    figure.add_trace(
                        go.Scatter(
                            x=[x for x, _ in points], y=[y for _, y in points], mode="lines", name=label,
                            legendgroup=label, showlegend=place == 0 and name == names[0],
                            line={"color": theme.SERIES[number % len(theme.SERIES)], "width": 2,
                                  "dash": "dot" if _split(name) == 0 else "solid"},
                            hovertemplate="%{y:.4g}<extra>" + f"{label}, {_word(name)}" + "</extra>",
                        ),
                        row=place // columns + 1, col=place % columns + 1,
                    )  # fmt: skip
    legend = {"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yref": "container", "yanchor": "top"}
    theme.layout(theme.axes(figure), height=80 + 230 * lines, legend=legend)
    figure.update_layout(margin={"l": 50, "r": 20, "t": 64, "b": 44})
    figure.update_annotations(font={"size": 14, "color": theme.INK})
    return figure.update_yaxes(rangemode="tozero")


def _title(title: str, unit: str, names: Sequence[str]) -> str:
    """A panel's title with its unit; layers are explained, several curves that are no splits named in their colours."""
    text = f"{title} ({unit})" if unit else title
    named = [(name, _color(name, i)) for i, name in enumerate(names) if _split(name) is None and "layer" not in name]
    words = [f"<span style='color:{color}'>{_word(name)}</span>" for name, color in named]
    if any("layer" in name for name in names):
        return f"{text}<br><sup>{', '.join(['first layer dark, last light', *words])}</sup>"
    return text if len(words) < 2 else f"{text}: {', '.join(words)}"


def _word(name: str) -> str:
    """A column's name as a word, without its group."""
    return name.rpartition("/")[2].replace("_", " ")


def _split(name: str) -> int | None:
    """0 for a training number, 1 for a held-out one, None for the others."""
    return next((i for i, words in enumerate((("train",), ("val", "test"))) if name.lower().startswith(words)), None)


def _color(name: str, index: int) -> str:
    """Training blue, held out orange, layers blue, others by their place."""
    split = _split(name)
    return theme.SERIES[split if split is not None else (0 if "layer" in name else index % len(theme.SERIES))]


def _line(name: str, points: list[tuple[float, float]], index: int, count: int) -> go.Scatter:
    """One curve; the layers of one quantity fade from dark to light."""
    layers = "layer" in name
    return go.Scatter(
        x=[x for x, _ in points],
        y=[y for _, y in points],
        mode="lines+markers" if len(points) < 30 else "lines",
        name=name,
        opacity=1.0 - 0.7 * index / count if layers else 1.0,
        line={"color": _color(name, index), "width": 1.5 if layers else 2},
        marker={"size": 4},
        hovertemplate="%{y:.4g}<extra>" + name + "</extra>",
        showlegend=False,
    )
