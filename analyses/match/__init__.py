"""Which head of one model looks where a head of another does? Optimal pairs, a baseline, and an atlas of both.

Any two sources: a ViT's relative attention and an AFT's exp(w) are both weights relative to a uniform share.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from matplotlib.figure import Figure, SubFigure

from analyses.command import report_folder, save
from analyses.learned.starts import check_starts
from analyses.match.atlas import atlas
from analyses.match.figure import draw, interactive, size
from analyses.match.heads import Frame, Heads, common_frame, shaped_heads
from analyses.match.likeness import MEASURES
from analyses.match.matching import NULLS, Matching, match
from analyses.offset_maps import read_offset_maps
from analyses.provenance import environment
from analyses.result import Result, Table

SHOWN = 12
"""Pairs printed and drawn."""
PRINTED = 5
"""The same that are printed; the record has all."""


@dataclass(frozen=True)
class Match(Result):
    """Pairs of heads of two models under both measures."""

    name = "match"

    first: Heads
    second: Heads
    frame: tuple[int, int]
    """Rows and columns of the common frame, in offsets."""
    framing: str
    matchings: tuple[Matching, ...]
    seed: int
    shared_start: str = ""
    """What the models share of the draw that they started from, in words; empty where nothing is."""

    @property
    def size(self) -> tuple[float, float]:  # type: ignore[override]
        """As wide as there are pairs to draw."""
        return size(self.matchings, SHOWN)

    def plot(self, figure: Figure | SubFigure) -> None:
        """The most alike pairs of each measure, and the baselines."""
        draw(self.first, self.second, self.matchings, SHOWN, figure)

    def interactive(self) -> go.Figure:
        """The pairs with offset and weight under the pointer."""
        return interactive(self.first, self.second, self.matchings, SHOWN)

    def record(self) -> dict[str, Any]:
        """Every pair, and the baselines."""
        return {
            **environment(),
            "seed": self.seed,
            "shared_start": self.shared_start,
            "frame": self.frame,
            "framing": self.framing,
            "nulls": NULLS,
            "models": [
                {"label": heads.label, "heads": len(heads.places), "flat": heads.flat, "kept": heads.kept}
                for heads in (self.first, self.second)
            ],
            "matchings": [
                {
                    "measure": matching.measure,
                    "mean": matching.mean,
                    "pairs": [
                        {"first": self.first.places[i], "second": self.second.places[j], "score": score}
                        for (i, j), score in zip(matching.pairs, matching.scores, strict=True)
                    ],
                    "baselines": matching.baselines,
                }
                for matching in self.matchings
            ],
        }

    def table(self) -> Table:
        """The means against chance, then the most alike pairs, then what was compared and how."""
        lines = [
            f"{heads.label}: {len(heads.places)} heads of {heads.shape[0]} layers, {len(heads.flat)} flat ones left "
            f"out, {100 * heads.kept:.0f} % of their weight above or below uniform on the frame"
            for heads in (self.first, self.second)
        ]
        lines.append(f"frame {self.frame[0]} x {self.frame[1]} offsets ({self.framing})")
        lines += [f"  null {null}: {words}" for null, words in NULLS.items()]
        rows = [
            [matching.measure, f"{matching.mean:.3f}", one.null, f"{one.draws.mean():.3f}",
             f"[{one.interval[0]:.3f}, {one.interval[1]:.3f}]", f"{one.p_value:.3g}", str(len(one.draws))]
            for matching in self.matchings for one in matching.baselines
        ]  # fmt: skip
        note = [f"Beware: {self.shared_start}"] if self.shared_start else []
        for matching in self.matchings:
            note.append(f"most alike by {matching.measure} (layer.head)")
            for (i, j), score in list(zip(matching.pairs, matching.scores))[:PRINTED]:
                (a, b), (c, d) = self.first.places[i], self.second.places[j]
                note.append(f"  {self.first.label} {a}.{b}  {self.second.label} {c}.{d}  {score:.3f}")
        columns = ["measure", "mean of pairs", "null", "by chance", "95 %", "p", "draws"]
        title = f"{self.first.label} and {self.second.label}: how alike their heads' pairs are, and pairs by chance"
        return Table(columns, rows, title, "\n".join([*note, *lines]))


def command(
    first: str,
    second: str,
    images: int = 256,
    data: str | None = None,
    root: str | None = None,
    pretrained: bool = True,
    framing: Frame = "crop",
    draws: int = 200,
    components: int = 6,
    clusters: int | None = None,
    shared_start: bool = False,
    seed: int = 0,
    device: str = "cpu",
    out: Path | None = None,
) -> None:
    """Pair the heads of two models by where they look, test the pairs against chance, and draw an atlas of both.

    Args:
        first: A model's folder, the name of one that ships or was trained, torchvision:NAME, timm:NAME or
            hf:NAME_OR_PATH.
        second: Another; the baselines exchange the offsets of this one's maps.
        images: Test images that a ViT's attention is averaged over (the paper: 256).
        data: Data set of those images; the one a ViT of ours was trained on if left out.
        root: Folder of downloaded data; data/ if left out.
        pretrained: false gives both models random weights: what pairs of such maps are worth.
        framing: Offsets that are compared, "crop" (those both models have) or "pad" (those either has).
        draws: Random exchanges of offsets for each baseline; fewer for earth mover's between many heads.
        components: NMF components of the atlas.
        clusters: Clusters of the atlas; the number with the best silhouette if left out.
        shared_start: Pair models whose heads started from one draw too, which is refused otherwise, and say so.
        seed: Of the baselines, the NMF and random weights; the second model's random weights have the next one.
        device: Where a ViT runs: cpu, cuda or cuda:N.
        out: Folder for match and atlas, each as .json, .png, .svg and .html; if left out reports/match, or
            reports/match-random.
    """
    words = check_starts([first, second], allowed=shared_start) if pretrained else ""
    maps = [
        read_offset_maps(
            spec,
            images=images,
            data=data,
            seed=number,
            control=not pretrained,
            root=root,
            device=device,
            progress=True,
        )
        for spec, number in ((first, seed), (second, seed + 1))
    ]
    frame = common_frame(maps[0], maps[1], framing)
    a, b = (shaped_heads(one, frame) for one in maps)
    found = Match(
        a, b, frame, framing, tuple(match(a, b, measure, draws=draws, seed=seed) for measure in MEASURES), seed, words
    )
    both = atlas((a, b), components=components, clusters=clusters, seed=seed)
    print(found, both, sep="\n")
    folder = out or report_folder("match", *([] if pretrained else ["random"]))
    for result in (found, both):
        save(result, folder)
