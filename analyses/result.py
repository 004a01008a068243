"""The one protocol of results: a record, a table, a drawing and an interactive figure; saving is written once.

A result says what it holds by `record()`, `table()`, `plot(figure)` and `interactive()`. From these, `save()` makes
JSON, PNG, SVG and HTML, `str()` and `print` the table as text, and a notebook the figure and the table (`_repr_html_`).
Commands and the app draw by the same methods.
"""

import base64
import io
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure, SubFigure
from tabulate import tabulate
from torch import Tensor

from aft_lens.files import write_whole
from analyses.provenance import PUBLISHED, RESULTS, command_line, made_by

if TYPE_CHECKING:  # a machine that measures alone has no Plotly
    import plotly.graph_objects as go

DPI = 160
DIGITS = 6
"""Significant digits of fractions in records."""


@dataclass(frozen=True)
class Table:
    """Cells of text under column names; numbers come formatted, so that a table reads alike everywhere."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    """A line or more above it."""
    note: str = ""
    """A line or more below it."""
    words: int | None = None
    """Columns at the left that are words; Markdown has the others to the right, as figures. None: all are words."""

    def text(self) -> str:
        """Columns aligned to the right under their names, between title and note."""
        # Names as a row of their own: as headers, each would get two more spaces.
        body = tabulate([self.columns, *self.rows], tablefmt="plain", disable_numparse=True, stralign="right")
        return "\n".join(part for part in (self.title, body, self.note) if part)

    def markdown(self) -> str:
        """The table alone, as GitHub reads it."""
        words = len(self.columns) if self.words is None else self.words
        sides = ["left"] * words + ["right"] * (len(self.columns) - words)
        return self._as("pipe", colalign=sides)

    def html(self) -> str:
        """The table alone, escaped."""
        return self._as("html", stralign="left")

    def mappings(self) -> list[dict[str, str]]:
        """The rows by column name."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]

    def _as(self, form: str, **options: Any) -> str:
        return tabulate(list(self.rows), list(self.columns), form, disable_numparse=True, **options)


def mean_cell(values: Float[np.ndarray, "head"], digits: int) -> str:
    """A table's cell: the mean over the heads that have a value, "-" where none has."""
    return "-" if np.isnan(values).all() else f"{np.nanmean(values):.{digits}f}"


class Shown(ABC):
    """What prints as its table, at a prompt and in a notebook too; a frozen dataclass that inherits from this."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Dataclasses leave a `__repr__` of the class's own as it is: theirs would print every array."""
        super().__init_subclass__(**options)
        cls.__repr__ = Shown.__str__  # type: ignore[assignment]

    @abstractmethod
    def table(self) -> Table:
        """What is read first."""

    def __str__(self) -> str:
        """The table as text."""
        return self.table().text()

    def _repr_html_(self) -> str:
        """The table, as a notebook shows it."""
        return self.table().html()


class Result(Shown):
    """What an analysis found; a frozen dataclass that inherits from this shows and saves itself."""

    name: ClassVar[str]
    """Stem of its files."""
    size: ClassVar[tuple[float, float]] = (7.0, 4.0)
    """Width and height of the figure in inches; a property where it depends on what there is to draw."""

    @abstractmethod
    def record(self) -> dict[str, Any]:
        """Everything measured, as values that `plain` can write; without the command, which `save` adds."""

    @abstractmethod
    def plot(self, figure: Figure | SubFigure) -> None:
        """Draw into an empty figure, or a part of one, by matplotlib."""

    @abstractmethod
    def interactive(self) -> "go.Figure":
        """The same by Plotly, with values under the pointer."""

    def figure(self) -> Figure:
        """A new figure of `size` with the drawing on it; it belongs to no window and leaves pyplot alone."""
        figure = Figure(figsize=self.size, layout="constrained")
        self.plot(figure)
        return figure

    def save(self, out: Path | str, name: str | None = None) -> list[Path]:
        """Write NAME.json, .png, .svg and .html into a folder and return their paths; each is whole or not there."""
        out, stem = Path(out), name or self.name
        return [
            self.write_record(out / f"{stem}.json"),
            *self.write_figures(out, stem),
            self.write_page(out / f"{stem}.html"),
        ]

    def write_record(self, path: Path) -> Path:
        """Write the record with the command line that made it, and return the path."""
        return write_whole(path, dump({"command": command_line(), **self.record()}))

    def write_figures(self, out: Path, stem: str) -> list[Path]:
        """Write STEM.png and .svg into a folder and return their paths."""
        figure = self.figure()
        return [write_whole(out / f"{stem}.{kind}", drawn(figure, kind)) for kind in ("png", "svg")]

    def write_page(self, path: Path) -> Path:
        """Write the interactive figure as a page that needs nothing beside it, and return the path."""
        return write_whole(path, self.interactive().to_html(include_plotlyjs=True))

    def _repr_html_(self) -> str:
        """Figure and table, as a notebook shows a result."""
        picture = base64.b64encode(drawn(self.figure(), "png", dpi=100)).decode()
        return f'<img src="data:image/png;base64,{picture}" style="max-width: 100%">{self.table().html()}'


def drawn(figure: Figure, kind: str, *, dpi: int = DPI) -> bytes:
    """A figure as the bytes of a PNG or SVG file, the same each time that it is drawn."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "aft-lens"}):
        figure.savefig(buffer, format=kind, dpi=dpi, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()


def dump(record: Mapping[str, Any]) -> str:
    """JSON with a line for each field, and for each row of a list of records."""
    lines = []
    for key, value in record.items():
        content = plain(value)
        text = json.dumps(content)
        if isinstance(content, list) and content and isinstance(content[0], dict):
            text = "[\n  " + ",\n  ".join(json.dumps(row) for row in content) + "\n ]"
        lines.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def plain(value: Any) -> Any:
    """A value as JSON has it: arrays and records as lists and objects, six significant digits, NaN as null."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


def record_path(path: Path) -> Path:
    """A result's JSON, or the published one where nothing is measured in the usual folder yet."""
    return PUBLISHED / path.name if path.parent == RESULTS and not path.is_file() else path


def read_record(path: Path, maker: str) -> dict[str, Any]:
    """The content of a result's JSON (`record_path`); FileNotFoundError, with what makes it, where there is none."""
    path = record_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; make it with {maker}")
    return dict(json.loads(path.read_text(encoding="utf-8")))


def published(result: Result, path: Path, device: str = "cpu") -> Path:
    """Write a result's record with command, hardware and versions where results are published; return the path."""
    return write_whole(path, dump(made_by(device) | result.record()))
