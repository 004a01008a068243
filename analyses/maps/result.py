"""What results that are maps by layer and head have in common: the mosaic, on paper and under the pointer."""

from abc import abstractmethod
from typing import ClassVar

import plotly.graph_objects as go
from matplotlib.figure import Figure, SubFigure

from analyses.maps.head_maps import HeadMaps
from analyses.maps.mosaic import SIDES, mosaic
from analyses.maps.picture import draw, size
from analyses.result import Result

TILE = 66
"""Side of a map in the interactive mosaic, in pixels."""


class MapResult(Result):
    """A result that is drawn as one mosaic."""

    title: ClassVar[str]
    """Above the mosaic; a property where it depends on what there is to draw."""

    @abstractmethod
    def head_maps(self, label: str = "") -> HeadMaps:
        """The maps to draw, under the name of their model."""

    @property
    def size(self) -> tuple[float, float]:  # type: ignore[override]
        """As many tiles as there are maps."""
        return size(self.head_maps())

    def plot(self, figure: Figure | SubFigure) -> None:
        """One row a layer and one column a head."""
        draw(self.head_maps(), figure, self.title)

    def interactive(self) -> go.Figure:
        """The same mosaic with the value and offset under the pointer."""
        shown = self.head_maps().spread()
        width = max(460, SIDES + TILE * shown.heads)
        return mosaic(shown, bound=self.head_maps().bound(), title=self.title, width=width).update_layout(width=width)
