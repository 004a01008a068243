"""Content and position in a ViT's logits, as one result."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from matplotlib.figure import Figure, SubFigure
from plotly.subplots import make_subplots

from analyses import theme
from analyses.provenance import environment
from analyses.qk.parts import GROUPS, PARTS, Parts
from analyses.result import Result, Table

METHOD = (
    "Logits of patches over patches, centred over sources, which is all that softmax sees. Queries and keys are "
    "their mean, what place adds on average over images, and content, the rest (analysis of variance, after arXiv "
    "2601.05328); places are averaged over the other half of the images. A part's share is its covariance with the "
    "logits over their variance: shares sum to 1, and one may be below 0. position: what queries share, or the "
    "target's place, with the source's place; no image changes it. mixed: place of one token, content of the other. "
    "content: what queries share, or the target's content, with the source's content. offsets in position: share of "
    "the mean logits of places that a function of offset and one of the target explain. offsets in attention: share "
    "of the variance of attention about uniform that offsets explain, as in explain. Intervals are 95 %: "
    "percentiles over bootstrap samples of the images."
)


@dataclass(frozen=True)
class QK(Result):
    """How much of every head's logits is position, content, or both."""

    name = "qk"

    source: str
    parts: Parts
    explained: Float[np.ndarray, "layer head"]
    """Share of the attention's variance that offsets explain; see `HeadPositions.variance`."""
    grid: tuple[int, int]
    data: str = ""
    device: str = "cpu"
    label: str = ""
    """What tables and figures call the model; its source if empty."""

    @property
    def shown(self) -> str:
        """What the model is called."""
        return self.label or self.source

    @property
    def size(self) -> tuple[float, float]:  # type: ignore[override]
        """Five panels in a row."""
        return 12.0, 0.24 * len(self.explained) + 1.2

    def panels(self) -> dict[str, Float[np.ndarray, "layer head"]]:
        """What is drawn, by its title."""
        return {
            **{f"{name} in logits": self.parts.group(name) for name in GROUPS},
            "offsets in position": self.parts.offsets, "offsets in attention": self.explained,
        }  # fmt: skip

    def table(self) -> Table:
        """A row a layer: means over heads, and the head that is most position."""
        panels, low = self.panels(), self.parts.intervals("position")
        rows = []
        for layer in range(len(self.explained)):
            first = panels["position in logits"][layer]
            head = int(np.nanargmax(first)) if not np.isnan(first).all() else 0
            most = f"{layer}.{head}: {first[head]:.2f} [{low[0, layer, head]:.2f}, {low[1, layer, head]:.2f}]"
            means = ["-" if np.isnan(one[layer]).all() else f"{np.nanmean(one[layer]):.2f}" for one in panels.values()]
            rows.append([str(layer), *means, most])
        images = len(self.parts.covariance)
        title = (
            f"{self.shown}: content and position in QK' over {images} images{f' of {self.data}' if self.data else ''}"
        )
        note = "shares of the variance of the logits over sources, means over heads; offsets beside them"
        return Table(["layer", *panels, "most position [95 %]"], rows, title, note, words=1)

    def plot(self, figure: Figure | SubFigure) -> None:
        """Layers by heads, a panel a share."""
        panels = self.panels()
        axes = figure.subplots(1, len(panels))
        for axis, (title, values) in zip(axes, panels.items()):
            image = axis.imshow(values, "viridis", vmin=0, vmax=1, aspect="auto")
            axis.set_title(title, fontsize=8)
            axis.set_xlabel("head", fontsize=7)
            axis.tick_params(labelsize=6)
        axes[0].set_ylabel("layer", fontsize=7)
        figure.colorbar(image, ax=axes, pad=0.01).ax.tick_params(labelsize=6)
        figure.suptitle(f"{self.shown}: what its logits rest on", fontsize=9)

    def interactive(self) -> go.Figure:
        """The same with values under the pointer."""
        panels = self.panels()
        figure = make_subplots(1, len(panels), subplot_titles=list(panels))
        for column, values in enumerate(panels.values(), 1):
            heat = go.Heatmap(
                z=values, coloraxis="coloraxis", hovertemplate="layer %{y}, head %{x}<br>%{z:.3f}<extra></extra>"
            )
            figure.add_trace(heat, 1, column)
            figure.update_yaxes(autorange="reversed", row=1, col=column)
        figure.update_annotations(font_size=12)
        theme.layout(figure, height=190 + 24 * len(self.explained), title=self.table().title, margin={"t": 80})
        return figure.update_layout(coloraxis={"colorscale": "Viridis", "cmin": 0, "cmax": 1})

    def record(self) -> dict[str, Any]:
        """Every head's shares."""
        return {
            "model": self.shown, "source": self.source, "data": self.data, **environment(self.device),
            "method": METHOD, "grid": self.grid, "images": len(self.parts.covariance), "parts": PARTS,
            "shares": self.parts.shares, "variance": self.parts.variance,
            "groups": {name: self.parts.group(name) for name in GROUPS},
            "intervals": {name: self.parts.intervals(name) for name in GROUPS},
            "mean": {name: float(np.nanmean(self.parts.group(name))) for name in GROUPS},
            "offsets_in_position": self.parts.offsets, "offsets_in_attention": self.explained,
        }  # fmt: skip
