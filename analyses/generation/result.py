"""Samples and completions as results: pictures or text, with how they were drawn."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import plotly.express as px
import plotly.graph_objects as go
from jaxtyping import Int
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

from aft_lens.models import Sampling
from analyses.generation.pictures import as_text, cut, images, sheet
from analyses.result import Result, Table
from analyses.theme import layout

COLUMNS = 8
"""Images side by side."""
WIDTH = 96
"""Characters of a line of text."""
GIVEN, LATIN_END = "▸", "\u0180"
"""Between what a decoder was given and what it drew; behind the last character that figures show."""


@dataclass(frozen=True)
class Samples(Result):
    """Sequences that a decoder drew."""

    name = "samples"

    source: str
    symbols: Int[Tensor, "n t"]
    given: int
    """Symbols of each that the decoder was given."""
    grid: tuple[int, ...]
    """Rows, columns and channels of images; empty for text."""
    sampling: Sampling
    seed: int

    @property
    def size(self) -> tuple[float, float]:  # type: ignore[override]
        """As high as there are rows."""
        rows, columns = -(-len(self.symbols) // COLUMNS), min(COLUMNS, len(self.symbols))
        return (0.9 * columns + 0.4, 0.9 * rows + 0.6) if self.grid else (9.0, 0.4 + 0.22 * self._lines())

    def record(self) -> dict[str, Any]:
        """Every symbol, and text as text."""
        texts = {} if self.grid else {"texts": [as_text(row) for row in self.symbols]}
        return {
            "source": self.source, "given": self.given, "grid": self.grid, "sampling": asdict(self.sampling),
            "seed": self.seed, **texts, "symbols": self.symbols,
        }  # fmt: skip

    def table(self) -> Table:
        """Of text, a text a row; of images, how many there are."""
        if self.grid:
            size = " × ".join(map(str, self.grid))
            return Table(["images", "size", "given"], [[str(len(self.symbols)), size, str(self.given)]], self._title())
        rows = [[str(number), as_text(row)] for number, row in enumerate(self.symbols)]
        return Table(["", "text"], rows, self._title())

    def __str__(self) -> str:
        """Texts as they are."""
        if self.grid:
            return super().__str__()
        return "\n\n".join([self._title(), *(as_text(row) for row in self.symbols)])

    def picture(self) -> np.ndarray:
        """The images on one sheet."""
        return sheet(images(self.symbols, self.grid), min(COLUMNS, len(self.symbols)))

    def plot(self, figure: Figure | SubFigure) -> None:
        """The images, or the text."""
        axis = figure.subplots()
        axis.axis("off")
        if self.grid:
            axis.imshow(self.picture(), interpolation="nearest")
            axis.set_title(self._title(), fontsize=7)
        else:
            axis.text(0, 1, "\n\n".join(map(_wrapped, self._texts())), va="top", family="monospace", fontsize=7,
                      parse_math=False)  # fmt: skip

    def interactive(self) -> go.Figure:
        """The same by Plotly."""
        if self.grid:
            return _sheet(self.picture())
        return _words(self._texts())

    def _texts(self) -> list[str]:
        return [as_text(row) for row in self.symbols]

    def _lines(self) -> int:
        return sum(_wrapped(text).count("\n") + 2 for text in self._texts())

    def _title(self) -> str:
        how = self.sampling
        parts = [f"temperature {how.temperature:g}"]
        parts += [f"top-k {how.top_k}"] * bool(how.top_k) + [f"top-p {how.top_p:g}"] * (how.top_p < 1)
        return f"{self.source}: {', '.join(parts)}, seed {self.seed}"


@dataclass(frozen=True)
class Completions(Samples):
    """Test sequences of which a decoder was given the beginning, and how it went on (Fig. 4)."""

    name = "completions"

    truth: Int[Tensor, "m t"]
    """The sequences as they are, each completed as often as there are `symbols` for it."""

    def record(self) -> dict[str, Any]:
        """With the truth."""
        texts = {} if self.grid else {"true_texts": [as_text(row) for row in self.truth]}
        return {**super().record(), **texts, "truth": self.truth}

    @property
    def size(self) -> tuple[float, float]:  # type: ignore[override]
        """Rows: what is given, the completions, the truth."""
        times = len(self.symbols) // len(self.truth)
        return (
            (0.9 * len(self.truth) + 0.4, 0.9 * (times + 2) + 0.5) if self.grid else (9.0, 0.4 + 0.22 * self._lines())
        )

    def picture(self) -> np.ndarray:
        """Given, completions, truth: a row each."""
        truth, drawn = images(self.truth, self.grid), images(self.symbols, self.grid)
        order = drawn.reshape(len(truth), -1, *drawn.shape[1:]).swapaxes(0, 1).reshape(drawn.shape)
        return sheet(np.concatenate([cut(truth, self.given, self.grid), order, truth]), len(truth))

    def parts(self) -> list[tuple[str, str]]:
        """Of text, what was given and what was drawn."""
        return [(as_text(row[: self.given]), as_text(row[self.given :])) for row in self.symbols]

    def _texts(self) -> list[str]:
        return [GIVEN.join(each) for each in self.parts()]


def _wrapped(text: str) -> str:
    """Lines of at most `WIDTH` characters, of those that the figures' font has."""
    text = "".join(each if each < LATIN_END or each == GIVEN else "\N{REPLACEMENT CHARACTER}" for each in text)
    return "\n".join(
        line[start : start + WIDTH] for line in text.split("\n") for start in range(0, max(1, len(line)), WIDTH)
    )


def _sheet(picture: np.ndarray) -> go.Figure:
    figure = px.imshow(picture)
    figure.update_traces(hoverinfo="skip", hovertemplate=None)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return layout(figure, height=max(160, 4 * picture.shape[0]))


def _words(texts: Sequence[str]) -> go.Figure:
    """Texts in a table, which wraps them."""
    cells = [text.replace("<", "&lt;").replace("\n", "<br>") for text in texts]
    figure = go.Figure(go.Table(header={"values": ["text"]}, cells={"values": [cells], "align": "left"}))
    return layout(figure, height=160 + 120 * len(texts))
