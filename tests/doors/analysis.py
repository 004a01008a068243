"""An analysis of another package, complete: `aft-lens strongest CHECKPOINT`, and a page in the app.

Its pyproject.toml has the line `strongest = "PACKAGE.analysis"` below `[project.entry-points."aft_lens.analyses"]`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import plotly.graph_objects as go

from aft_lens.checkpoint import load_checkpoint
from analyses.bias import position_bias_maps
from analyses.command import report
from analyses.result import Result, Table


@dataclass(frozen=True)
class Strongest(Result):
    """The largest |exp(w) - 1| of every head."""

    values: np.ndarray
    name = "strongest"

    def record(self):
        return {"strongest": self.values}

    def table(self):
        return Table(["layer", "strongest"], [[str(i), f"{row.max():.3f}"] for i, row in enumerate(self.values)])

    def plot(self, figure):
        figure.subplots().imshow(self.values)

    def interactive(self):
        return go.Figure(go.Heatmap(z=self.values))


def show(checkpoint: Path) -> Strongest:
    return Strongest(abs(position_bias_maps(load_checkpoint(checkpoint).model).maps).max((2, 3)))


def command(checkpoint: Path, out: Path = Path("reports/strongest")) -> None:
    """Print and save the strongest bias of every head."""
    report(show(checkpoint), out)
