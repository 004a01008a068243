"""What one offset, head or layer is worth: without it, beside random and strongest places of the same number."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
import torch
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

from aft_lens.extraction import AFTReader, AttentionReader
from aft_lens.progress import progress
from analyses import theme
from analyses.explain.causal import Batches, Effect, compare, outcome
from analyses.knockout.edits import edited
from analyses.result import Result, Table

DRAWS = 5
"""Random selections of the same size."""


@dataclass(frozen=True)
class Selection:
    """What is taken out: a layer, one head of it, or one offset of a head."""

    layer: int
    head: int | None = None
    """None: all heads of the layer."""
    offset: tuple[int, int] | None = None
    """(Δy, Δx); None: the whole map."""

    @property
    def words(self) -> str:
        """In words."""
        head = "" if self.head is None else f", head {self.head}"
        place = "" if self.offset is None else f", offset Δy {self.offset[0]:+d}, Δx {self.offset[1]:+d}"
        return f"layer {self.layer}{head}{place}"


@dataclass(frozen=True)
class Worth(Result):
    """A selection's effect beside its controls, all on the same images."""

    name = "worth"
    size = (6.5, 2.6)

    source: str
    data: str
    images: int
    accuracy: float
    """Of the intact model."""
    interval: tuple[float, float]
    places: int
    """Places whose bias is set to 0 (of a ViT: heads whose attention is made uniform)."""
    effects: tuple[tuple[str, Effect], ...]
    """What was taken out, and what that did."""
    seed: int

    def record(self) -> dict[str, Any]:
        """All of it."""
        return {
            "source": self.source, "data": self.data, "images": self.images, "accuracy": self.accuracy,
            "interval": self.interval, "places": self.places, "seed": self.seed,
            "effects": [{"taken_out": words, "effect": effect} for words, effect in self.effects],
        }  # fmt: skip

    def table(self) -> Table:
        """A row a selection."""
        rows = [
            [words, f"{100 * effect.accuracy:.2f}", effect.points, f"{effect.loss:+.4f}"]
            for words, effect in self.effects
        ]
        low, high = (100 * end for end in self.interval)
        title = (
            f"{self.source} on {self.images} test images of {self.data}: {100 * self.accuracy:.2f} % [{low:.2f}, "
            f"{high:.2f}]; {self.places} place(s) taken out, changes paired by image"
        )
        return Table(["taken out", "accuracy %", "change (points) [95 %]", "loss (nats)"], rows, title, words=1)

    def plot(self, figure: Figure | SubFigure) -> None:
        """Change of accuracy with its interval."""
        axis = figure.subplots()
        for place, (_, effect) in enumerate(self.effects):
            color = theme.SERIES[0] if place == 0 else theme.MUTED
            axis.plot([100 * end for end in effect.interval], [place] * 2, color=color)
            axis.plot(100 * effect.change, place, "o", color=color, ms=4)
        axis.axvline(0, color=theme.GRID)
        axis.set_yticks(range(len(self.effects)), [words for words, _ in self.effects], fontsize=7)
        axis.invert_yaxis()
        axis.set_xlabel("change of accuracy, points, and 95 % interval")

    def interactive(self) -> go.Figure:
        """The same with values under the pointer."""
        changes = [100 * effect.change for _, effect in self.effects]
        figure = go.Figure(
            go.Scatter(
                x=changes, y=[words for words, _ in self.effects], mode="markers",
                marker={"color": [theme.SERIES[0]] + [theme.MUTED] * (len(changes) - 1), "size": 9},
                error_x={"array": [100 * effect.interval[1] - now for now, (_, effect) in zip(changes, self.effects)],
                         "arrayminus": [now - 100 * effect.interval[0]
                                        for now, (_, effect) in zip(changes, self.effects)]},
                customdata=[effect.points for _, effect in self.effects],
                hovertemplate="%{y}: %{customdata} points<extra></extra>",
            )
        )  # fmt: skip
        theme.layout(theme.axes(figure), height=110 + 30 * len(changes), showlegend=False)
        figure.update_xaxes(title="change of accuracy, points, and 95 % interval", zeroline=True)
        return figure.update_yaxes(autorange="reversed", automargin=True)


def worth(
    reader: AttentionReader, batches: Batches, chosen: Selection, *, source: str = "model", data: str = "",
    draws: int = DRAWS, seed: int = 0,
) -> Worth:  # fmt: skip
    """Take a selection out of a model and compare it with `draws` random ones and the strongest of the same size.

    Of an AFT-conv the biases of the places are set to 0, the pooled weight; of a ViT the attention of the heads is
    made uniform. Raises ValueError where the model has no such place.
    """
    _check(reader, chosen)
    generator = torch.Generator().manual_seed(seed)
    intact = outcome(reader, batches)
    places, todo = (_biases if isinstance(reader, AFTReader) else _heads)(reader, chosen, draws, generator)
    effects = []
    for words, without in progress(todo, "knock-outs", patience=0.0):
        with without():
            effects.append((words, compare(intact, outcome(reader, batches))))
    return Worth(
        source, data, len(intact.right), intact.accuracy, intact.interval, places, tuple(effects), seed
    )  # fmt: skip


Todo = list[tuple[str, Callable[[], AbstractContextManager[None]]]]


def _biases(reader: AttentionReader, chosen: Selection, draws: int, generator: torch.Generator) -> tuple[int, Todo]:
    """Edits of position biases: the selection, the strongest places elsewhere, and random ones."""
    assert isinstance(reader, AFTReader)
    biases = [reader.bias(layer).detach() for layer in range(len(reader.layers))]
    flat = torch.cat([w.flatten() for w in biases])
    mask = [torch.zeros_like(w, dtype=torch.bool) for w in biases]
    part = mask[chosen.layer] if chosen.head is None else mask[chosen.layer][chosen.head]
    if chosen.offset is None:
        part[...] = True
    else:
        part[..., chosen.offset[0] + reader.window // 2, chosen.offset[1] + reader.window // 2] = True
    own = torch.cat([one.flatten() for one in mask]) & (flat != 0)
    count = int(own.sum())
    if count == 0:
        raise ValueError(f"{chosen.words} has no bias to take out: it is 0 already; choose another place")
    others = ((flat != 0) & ~own).nonzero().flatten()
    strongest = others[flat[others].expm1().abs().argsort(descending=True)][:count]
    picks = {chosen.words: own.nonzero().flatten(), f"strongest {len(strongest)} places elsewhere": strongest}
    for number in range(draws):
        picks[f"random {number + 1}"] = others[torch.randperm(len(others), generator=generator)[:count]]
    sizes = [w.numel() for w in biases]

    def without(places: Tensor) -> Callable[[], AbstractContextManager[None]]:
        changed = flat.clone()
        changed[places] = 0.0
        parts = {n: part.view_as(w) for n, (part, w) in enumerate(zip(changed.split(sizes), biases, strict=True))}
        return lambda: edited(reader.model, parts)  # type: ignore[arg-type]

    return count, [(words, without(places)) for words, places in picks.items()]


def _heads(reader: AttentionReader, chosen: Selection, draws: int, generator: torch.Generator) -> tuple[int, Todo]:
    """Edits of a ViT: heads whose attention becomes uniform; all heads have one size, so there is no strongest."""
    every = [(layer, head) for layer in range(len(reader.layers)) for head in range(reader.num_heads)]
    own = [place for place in every if place[0] == chosen.layer and chosen.head in (None, place[1])]
    others = [place for place in every if place not in own]

    @contextmanager
    def uniform(heads: Sequence[tuple[int, int]]) -> Iterator[None]:
        def change(layer: int, weights: Tensor) -> Tensor:
            mine = [head for at, head in heads if at == layer]
            if not mine:
                return weights
            weights = weights.clone()
            weights[:, mine] = 1.0 / weights.shape[-1]
            return weights

        with reader.edited(change):
            yield

    picks = {chosen.words: own}
    for number in range(draws):
        order = torch.randperm(len(others), generator=generator)[: len(own)].tolist()
        picks[f"random {number + 1}"] = [others[place] for place in order]
    return len(own), [(words, lambda heads=heads: uniform(heads)) for words, heads in picks.items()]  # type: ignore[misc]


def _check(reader: AttentionReader, chosen: Selection) -> None:
    """ValueError where the model has no such layer, head or offset."""
    for name, value, count in (
        ("layer", chosen.layer, len(reader.layers)), ("head", chosen.head or 0, reader.num_heads)
    ):  # fmt: skip
        if not 0 <= value < count:
            raise ValueError(f"{name} must be 0 to {count - 1}, got {value}")
    if chosen.offset is not None:
        if not isinstance(reader, AFTReader):
            raise ValueError("offset must be left out for a ViT, whose attention differs from image to image")
        reach = reader.window // 2
        if max(map(abs, chosen.offset)) > reach:
            raise ValueError(f"offset must lie within {reach} patches, got {chosen.offset}")
