"""A scan as one result: findings ranked by strength, every head's numbers, one page."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure, SubFigure
from plotly.subplots import make_subplots

from analyses import theme
from analyses.maps.head_maps import HeadMaps
from analyses.maps.mosaic import mosaic
from analyses.page import Section, write_page
from analyses.provenance import command_line, environment
from analyses.qk.parts import GROUPS, Parts
from analyses.result import Result, Table
from analyses.scan.findings import CENTRE, DRAWS, FEW, FLAT, KINDS, WEAK, Finding, Measures, ranked
from analyses.scan.gather import LARGE, PARTS, Sums

SHOWN = 12
"""Findings that are printed."""
COLUMNS = ("where", "strength", "finding")
ACROSS = 3
"""Panels in a row."""
METHOD = (
    "Attention of patches to patches is renormalised without prefix tokens. offset: share of a head's attention at "
    "its strongest offset, among targets that have it. local, far: mean distance, in patches. position: share of "
    "the variance of attention about uniform that offset explains. flat, content: exp(mean entropy) over the number "
    "of patches. prefix: share of a patch's attention that a class or register token gets. place: share that one "
    f"place of the grid gets, whatever the target. outlier, norms: patches with over {LARGE:g} times the median norm "
    "of their image. tokens: share of the variance of patches over images and places that place explains, less what "
    "chance has of it. places: share of the variance of the logits QK' over sources that no image changes (see qk). "
    "bias: rise of the loss without the position bias of a head or layer. Intervals are 95 % over images: "
    f"percentiles of {DRAWS} bootstrap samples of groups of images (as many groups as batches), a jackknife over "
    f"{PARTS} parts for tokens, over images for places, normal and paired for bias. strength, 0 to 1: how far the "
    f"near end of the interval is from what is expected of a head that does nothing of the kind (flat: from {FLAT:g} "
    f"of the patches on; content: below {FEW:g}, times the share that offset does not explain; place: over {CENTRE} "
    f"times flat attention's); findings of {WEAK:g} or less are left out, but those of a bias whose interval is "
    "above 0. A head's kind is its strongest finding."
)
PANELS = (
    ("distance", "mean distance, of flat attention's"), ("strongest", "attention at the strongest offset"),
    ("position", "variance explained by offset"), ("effective", "share of the patches that are read"),
    ("prefix", "attention to prefix tokens"), ("outlier", "attention to patches of large norm"),
)  # fmt: skip
"""Measures that are drawn, and their titles."""
GROUPS_OF = {f"logits_{name}": name for name in GROUPS}
LOGITS = tuple((field, f"logits: {name}") for field, name in GROUPS_OF.items())
"""Shares of the logits that are drawn where they are split."""


@dataclass(frozen=True)
class Scan(Result):
    """What one pass over images says of a ViT, or an AFT-conv, in the order of its strength."""

    name = "scan"

    source: str
    findings: tuple[Finding, ...]
    """The strongest first."""
    measures: Measures
    sums: Sums
    parts: Parts | None = None
    """Of the logits of queries and keys, over the first images; None where they are not split."""
    unsplit: str = ""
    """Why they are not."""
    data: str = ""
    """Of the images, and which of it they are."""
    device: str = "cpu"
    seconds: float = 0.0
    """The clock's, of the pass over the images; 0: not said."""

    @property
    def kinds(self) -> list[list[str]]:
        """What each head does most, by layer and head; "mixed" where nothing stands out."""
        found = [["mixed"] * self.measures.distance.shape[2] for _ in range(self.measures.distance.shape[1])]
        for one in reversed(self.findings):
            if one.head is not None:
                found[one.layer][one.head] = one.kind
        return found

    @property
    def size(self) -> tuple[float, float]:  # type: ignore[override]
        """Rows of three panels."""
        return 11.0, self._down * (0.26 * self.measures.distance.shape[1] + 1.1)

    @property
    def panels(self) -> tuple[tuple[str, str], ...]:
        """Measures that are drawn, and their titles; those of logits where they are split."""
        return PANELS if self.parts is None else PANELS + LOGITS

    @property
    def _down(self) -> int:
        return len(self.panels) // ACROSS

    def values(self, field: str) -> np.ndarray:
        """One measure on the images, `layer head`, as it is drawn: distance over that of flat attention."""
        if self.parts is not None and field in GROUPS_OF:
            return self.parts.group(GROUPS_OF[field])
        values = getattr(self.measures, field)[0]
        if field == "distance":
            return values / self.measures.flat
        return values.sum(-1) if field == "prefix" else values

    def table(self) -> Table:
        """The strongest finding of each head and layer, those that are strongest."""
        first = {one.place: one for one in reversed(self.findings)}  # the strongest of each place
        rows = _rows(ranked(list(first.values()))[:SHOWN])
        counted = Counter(kind for row in self.kinds for kind in row)
        kinds = ", ".join(f"{count} {KINDS.get(kind, kind)}" for kind, count in counted.most_common())
        images = int(self.sums.images.sum())
        title = f"{self.source}: {len(self.findings)} findings over {images} images"
        title += f" of {self.data}" if self.data else ""
        grid = " x ".join(map(str, self.sums.grid))
        left = len(self.findings) - len(rows)
        note = f"heads by their strongest finding: {kinds}" + (
            f"\n{left} more findings in the page" if left > 0 else ""
        )
        return Table(COLUMNS, rows, f"{title}, grid {grid}; intervals 95 %", note, words=3)

    def record(self) -> dict[str, Any]:
        """Every finding, and every head's numbers with their intervals."""
        heads = []
        fields = [field for field, _ in PANELS if field != "prefix"]
        bounds = {field: self.measures.interval(field) for field in (*fields, "prefix", "place")}
        for layer, head in np.ndindex(*self.measures.distance.shape[1:]):
            row: dict[str, Any] = {"layer": layer, "head": head, "kind": self.kinds[layer][head]}
            for field in (*fields, "place", "prefix"):
                row[field] = getattr(self.measures, field)[0, layer, head]
                row[f"{field}_interval"] = bounds[field][:, layer, head]
            if self.parts is not None:
                row |= {field: self.values(field)[layer, head] for field in GROUPS_OF}
            row["strongest_offset"] = self.measures.offsets[layer, head]
            heads.append(row)
        return {
            "source": self.source, "data": self.data, **environment(self.device), "method": METHOD,
            "images": int(self.sums.images.sum()), "groups": len(self.sums.images), "grid": self.sums.grid,
            "prefix_tokens": self.sums.prefix.shape[-1], "seconds": round(self.seconds, 1), "error": self.sums.error,
            "flat_distance": self.measures.flat,
            "logits_of_images": 0 if self.parts is None else len(self.parts.covariance), "unsplit": self.unsplit,
            "findings": [asdict(one) for one in self.findings], "heads": heads,
        }  # fmt: skip

    def save(self, out: Path | str, name: str | None = None) -> list[Path]:
        """Write NAME.json and NAME.html into a folder and return their paths."""
        out, stem = Path(out), name or self.name
        return [self.write_record(out / f"{stem}.json"), self.write_page(out / f"{stem}.html")]

    def write_page(self, path: Path) -> Path:
        """Findings, heads and maps on one page that needs nothing beside it."""
        grid = Table(
            ["layer", *(f"head {head}" for head in range(len(self.kinds[0])))],
            [[str(layer), *(KINDS.get(kind, kind) for kind in row)] for layer, row in enumerate(self.kinds)],
        )
        sections = [
            Section("The strongest findings", "Of each head and layer, its strongest.", self.table()),
            Section("What each head does most", "", grid),
            Section("Every head by number", self._of_logits(), figures=[("", self.interactive())]),
            Section(
                "Where the heads look",
                "Attention of patches by offset from target to source, n × attention − 1: 0 is flat.",
                figures=[("", mosaic(self.maps(), per_head=True))],
            ),
            Section("All findings", "", Table(COLUMNS, _rows(self.findings))),
        ]
        text = str(self.table().title)
        return write_page(path, f"Scan of {self.source}", text, sections, f"{METHOD} Made by: {command_line()}")

    def _of_logits(self) -> str:
        """What the page says of them."""
        if self.parts is None:
            return f"Logits are not split into place and content: {self.unsplit}." if self.unsplit else ""
        return (
            "The last row: shares of the variance of the logits QK' over sources, over the first "
            f"{len(self.parts.covariance)} images, that rest on places alone, on the place of one token and the "
            "content of the other, and on contents alone."
        )

    def maps(self) -> HeadMaps:
        """Mean attention by offset."""
        images, count = self.sums.images.sum(), np.prod(self.sums.grid)
        mean = self.sums.folded.sum(0) / (images * self.sums.targets)
        return HeadMaps(mean * count - 1, "n × attention − 1", label=self.source)

    def plot(self, figure: Figure | SubFigure) -> None:
        """Panels of layers by heads."""
        axes = figure.subplots(self._down, ACROSS)
        for axis, (field, title) in zip(axes.flat, self.panels):
            values = self.values(field)
            image = axis.imshow(
                values, "viridis", vmin=0, vmax=max(1.0, float(np.nanmax(values, initial=0))), aspect="auto"
            )
            axis.set_title(title, fontsize=8)
            axis.set_xlabel("head", fontsize=7)
            axis.set_ylabel("layer", fontsize=7)
            axis.tick_params(labelsize=6)
            figure.colorbar(image, ax=axis, pad=0.01).ax.tick_params(labelsize=6)
        figure.suptitle(f"Scan of {self.source}", fontsize=9)

    def interactive(self) -> go.Figure:
        """The same with values and intervals under the pointer."""
        titles = [title for _, title in self.panels]
        figure = make_subplots(self._down, ACROSS, subplot_titles=titles, vertical_spacing=0.32 / self._down)
        for place, (field, _) in enumerate(self.panels):
            row, column = 1 + place // ACROSS, 1 + place % ACROSS
            heat = go.Heatmap(
                z=self.values(field), zmin=0, coloraxis="coloraxis",
                hovertemplate="layer %{y}, head %{x}<br>%{z:.3f}<extra></extra>",
            )  # fmt: skip
            figure.add_trace(heat, row, column)
            figure.update_yaxes(autorange="reversed", title="layer", row=row, col=column)
            figure.update_xaxes(title="head", row=row, col=column)
        theme.layout(figure, height=160 + self._down * (80 + 18 * self.measures.distance.shape[1]))
        return figure.update_layout(coloraxis={"colorscale": "Viridis", "cmin": 0, "cmax": 1})


def _rows(findings: Iterable[Finding]) -> list[list[str]]:
    """Findings as rows of a table."""
    return [[one.place, f"{one.strength:.2f}", one.words] for one in findings]
