"""An atlas of heads: the patterns that maps by offset are made of (NMF), and which heads are of one kind (clusters)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int
from matplotlib.figure import Figure, SubFigure

from aft_lens.later import later
from analyses.match.atlas_figure import Page, draw, interactive, size
from analyses.match.heads import Heads
from analyses.match.likeness import standardised
from analyses.provenance import environment
from analyses.result import Result, Table

if TYPE_CHECKING:
    from sklearn import cluster as clustering
    from sklearn import decomposition, metrics
else:
    clustering = later("sklearn.cluster")
    decomposition = later("sklearn.decomposition")
    metrics = later("sklearn.metrics")

MOST_CLUSTERS = 8
"""Numbers of clusters from 2 to this are tried where none is given."""


@dataclass(frozen=True)
class Atlas(Result):
    """Components and clusters of all heads of one or more models together."""

    name = "atlas"

    heads: tuple[Heads, ...]
    components: Float[np.ndarray, "k y x"]
    """Patterns of weight by offset, each with sum 1, the most used first."""
    loadings: tuple[Float[np.ndarray, "n k"], ...]
    """By model and head (in the order of `Heads.places`): the share of its weight in each component."""
    explained: float
    """Share of the maps' variance around their mean that the components explain."""
    clusters: tuple[Int[np.ndarray, "n"], ...]
    """By model and head: its cluster, the largest first."""
    silhouette: float
    """Mean silhouette of the clusters, -1 to 1: above about 0.25 they are apart."""
    seed: int

    @property
    def cluster_maps(self) -> Float[np.ndarray, "c y x"]:
        """Mean map of each cluster, every head's first brought to mean 0 and standard deviation 1."""
        maps = np.concatenate([standardised(heads.maps).reshape(heads.maps.shape) for heads in self.heads])
        label = np.concatenate(self.clusters)
        return np.stack([maps[label == number].mean(0) for number in range(label.max() + 1)])

    @property
    def size(self) -> tuple[float, float]:  # type: ignore[override]
        """As wide as there are components and clusters."""
        return size(self.page())

    def page(self) -> Page:
        """What is drawn."""
        titles = (
            f"NMF of {sum(len(heads.places) for heads in self.heads)} heads: {len(self.components)} components explain "
            f"{100 * self.explained:.0f} % of the variance",
            f"{len(self.cluster_maps)} clusters by correlation, mean silhouette {self.silhouette:.2f}",
        )
        maps = self.cluster_maps
        members = tuple(np.eye(len(maps))[cluster] for cluster in self.clusters)
        return Page(self.heads, self.components * self.components[0].size - 1, self.loadings, maps, members, titles)

    def plot(self, figure: Figure | SubFigure) -> None:
        """Components and clusters, and below each where it occurs."""
        draw(self.page(), figure)

    def interactive(self) -> go.Figure:
        """The same with layer, head and value under the pointer."""
        return interactive(self.page())

    def record(self) -> dict[str, Any]:
        """The patterns, and what each head has of them."""
        return {
            **environment(),
            "seed": self.seed,
            "explained": self.explained,
            "silhouette": self.silhouette,
            "components": self.components,
            "cluster_maps": self.cluster_maps,
            "models": [
                {"label": heads.label, "heads": heads.places, "loadings": loading, "clusters": cluster}
                for heads, loading, cluster in zip(self.heads, self.loadings, self.clusters, strict=True)
            ],
        }

    def table(self) -> Table:
        """How many heads of each model every cluster has, and what the components explain."""
        count = range(len(self.cluster_maps))
        rows = [
            [heads.label, *(str(int((cluster == number).sum())) for number in count)]
            for heads, cluster in zip(self.heads, self.clusters, strict=True)
        ]
        title = (
            f"atlas: {len(self.components)} NMF components explain {100 * self.explained:.0f} % of the variance; "
            f"silhouette of {len(self.cluster_maps)} clusters {self.silhouette:.2f} (above about 0.25 they are apart)"
        )
        return Table(["heads by cluster", *map(str, count)], rows, title)


def atlas(models: Sequence[Heads], *, components: int = 6, clusters: int | None = None, seed: int = 0) -> Atlas:
    """Factorise and cluster the heads of all models together, so that components and clusters are shared.

    NMF (Lee and Seung, 1999) takes each head's weights 1 + map scaled to sum 1, non-negative parts of an additive
    whole, and starts from a deterministic SVD. Clusters are Ward's on maps of mean 0 and standard deviation 1, whose
    squared distances are 2 places (1 - correlation): shape counts, strength does not. Raises ValueError where there are
    fewer heads or offsets than components or clusters.
    """
    maps = np.concatenate([heads.maps for heads in models])
    most = min(len(maps), maps[0].size)
    if not 1 <= components <= most:
        raise ValueError(f"components must be 1 to {most} for {len(maps)} heads of {maps[0].size} offsets, "
                         f"got {components}")  # fmt: skip
    if clusters is not None and not 2 <= clusters < len(maps):
        raise ValueError(f"clusters must be 2 to {len(maps) - 1} for {len(maps)} heads, got {clusters}")
    weights = 1 + maps.reshape(len(maps), -1)
    weights = weights / weights.sum(1, keepdims=True)
    model = decomposition.NMF(components, init="nndsvda", solver="mu", max_iter=2000, tol=1e-5, random_state=seed)
    loading = model.fit_transform(weights)
    error = np.square(weights - loading @ model.components_).sum()
    scale = model.components_.sum(1)
    loading = loading * scale
    loading = loading / loading.sum(1, keepdims=True)
    order = np.argsort(-loading.sum(0), kind="stable")
    cut = np.cumsum([len(heads.places) for heads in models])[:-1]
    label, silhouette = _clustered(standardised(maps), clusters)
    return Atlas(
        tuple(models),
        (model.components_ / np.maximum(scale, np.finfo(float).tiny)[:, None])[order].reshape(-1, *maps.shape[1:]),
        tuple(np.split(loading[:, order], cut)),
        float(1 - error / np.square(weights - weights.mean(0)).sum()),
        tuple(np.split(label, cut)),
        silhouette,
        seed,
    )


def _clustered(points: Float[np.ndarray, "n places"], clusters: int | None) -> tuple[Int[np.ndarray, "n"], float]:
    """Ward's clusters, the largest first, and their silhouette; the best number by silhouette if none is given."""
    choices = range(2, min(MOST_CLUSTERS, len(points) - 1) + 1) if clusters is None else [clusters]
    labels = [clustering.AgglomerativeClustering(number).fit_predict(points) for number in choices]
    scores = [float(metrics.silhouette_score(points, label)) for label in labels]
    best = int(np.argmax(scores))
    size = np.argsort(-np.bincount(labels[best]), kind="stable")
    return np.argsort(size)[labels[best]], scores[best]
