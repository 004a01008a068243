"""Where the offsets that a pruned model keeps lie, a panel a layer."""

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analyses import theme

COLUMNS = 6
"""Panels in a row."""


def kept_offsets(offsets: Sequence[Sequence[Sequence[Sequence[int]]]], *, panel: int = 200) -> go.Figure:
    """Dots at the kept offsets (Δy, Δx) by layer; a dot's area is the share of a layer's most kept offset.

    `offsets` is layer, head, kept offset, (Δy, Δx), as `PruneLadder.offsets` gives it; every panel has one frame.
    """
    reach = max((abs(step) for layer in offsets for head in layer for kept in head for step in kept), default=1) + 0.6
    pitch = panel / (2 * reach)
    lines = -(-len(offsets) // COLUMNS)
    columns = min(COLUMNS, len(offsets))
    figure = make_subplots(
        lines, columns, subplot_titles=[f"layer {n}" for n in range(len(offsets))], horizontal_spacing=0.03
    )
    for number, layer in enumerate(offsets):
        keepers: dict[tuple[int, ...], list[int]] = {}
        for head, kept in enumerate(layer):
            for offset in kept:
                keepers.setdefault(tuple(offset), []).append(head)
        most = max(map(len, keepers.values()), default=1)
        keepers = dict(sorted(keepers.items(), key=lambda kept: kept[0] == (0, 0)))  # the position itself on top
        figure.add_trace(
            go.Scatter(
                x=[place[1] for place in keepers],
                y=[place[0] for place in keepers],
                mode="markers",
                marker={
                    "size": [max(4.0, 0.9 * pitch * (len(heads) / most) ** 0.5) for heads in keepers.values()],
                    "color": [theme.SERIES[0] if place == (0, 0) else theme.SERIES[1] for place in keepers],
                    "opacity": 0.9,
                },
                customdata=[", ".join(map(str, heads)) for heads in keepers.values()],
                hovertemplate="Δy %{y}, Δx %{x}<br>heads %{customdata}<extra></extra>",
            ),
            row=number // columns + 1,
            col=number % columns + 1,
        )
    theme.layout(theme.axes(figure), height=lines * (panel + 40) + 30, showlegend=False)
    figure.update_layout(margin={"l": 30, "r": 10, "t": 36, "b": 24})
    figure.update_annotations(font={"size": 13, "color": theme.MUTED})
    box = {"zeroline": True, "zerolinecolor": "#c3cad2", "showline": True, "mirror": True, "dtick": 2}
    figure.update_xaxes(range=[-reach, reach], constrain="domain", **box)
    figure.update_yaxes(range=[reach, -reach], constrain="domain", **box)
    for number in range(len(offsets)):
        place = {"row": number // columns + 1, "col": number % columns + 1}
        figure.update_yaxes(scaleanchor="x" if number == 0 else f"x{number + 1}", **place)
    return figure
