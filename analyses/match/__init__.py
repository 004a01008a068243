"""Which head of one model looks where a head of another does? Optimal pairs, a baseline, and an atlas of both.

Any two sources: a ViT's relative attention and an AFT's exp(w) are both weights relative to a uniform share.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from analyses.figures import rounded, table
from analyses.match.atlas import atlas
from analyses.match.figure import draw, interactive
from analyses.match.heads import Frame, Heads, common_frame, shaped_heads
from analyses.match.likeness import MEASURES
from analyses.match.matching import NULLS, Matching, match
from analyses.offset_maps import read_offset_maps
from analyses.provenance import command_line, environment

SHOWN = 12
"""Pairs printed and drawn."""


@dataclass(frozen=True)
class Match:
    """Pairs of heads of two models under both measures."""

    first: Heads
    second: Heads
    frame: tuple[int, int]
    """Rows and columns of the common frame, in offsets."""
    framing: str
    matchings: tuple[Matching, ...]
    seed: int
    command: str
    """The line that made it."""

    def save(self, out: Path) -> list[Path]:
        """Write match.json, .png, .svg and .html into a folder and return their paths."""
        out.mkdir(parents=True, exist_ok=True)
        paths = [out / f"match.{kind}" for kind in ("json", "png", "svg", "html")]
        paths[0].write_text(json.dumps(self.record()) + "\n")
        figure = draw(self.first, self.second, self.matchings, SHOWN)
        figure.savefig(paths[1], dpi=160)
        figure.savefig(paths[2])
        plt.close(figure)
        interactive(self.first, self.second, self.matchings, SHOWN, self.command).write_html(
            paths[3], include_plotlyjs=True
        )
        return paths

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "command": self.command,
            **environment(),
            "seed": self.seed,
            "frame": list(self.frame),
            "framing": self.framing,
            "nulls": NULLS,
            "models": [
                {"label": heads.label, "heads": len(heads.places), "flat": list(heads.flat), "kept": heads.kept}
                for heads in (self.first, self.second)
            ],
            "matchings": [
                {
                    "measure": matching.measure,
                    "mean": matching.mean,
                    "pairs": [
                        {"first": list(self.first.places[i]), "second": list(self.second.places[j]), "score": score}
                        for (i, j), score in zip(matching.pairs, matching.scores, strict=True)
                    ],
                    "baselines": [{**asdict(one), "draws": rounded(one.draws)} for one in matching.baselines],
                }
                for matching in self.matchings
            ],
        }


def report(found: Match) -> str:
    """The means against chance, and the most alike pairs."""
    lines = [
        f"{heads.label}: {len(heads.places)} heads of {heads.shape[0]} layers, {len(heads.flat)} flat ones left out, "
        f"{100 * heads.kept:.0f} % of their weight above or below uniform on the frame"
        for heads in (found.first, found.second)
    ]
    lines.append(f"frame {found.frame[0]} x {found.frame[1]} offsets ({found.framing})")
    lines += [f"  null {null}: {words}" for null, words in NULLS.items()]
    rows = [
        [matching.measure, f"{matching.mean:.3f}", one.null, f"{one.draws.mean():.3f}",
         f"[{one.interval[0]:.3f}, {one.interval[1]:.3f}]", f"{one.p_value:.3g}", str(len(one.draws))]
        for matching in found.matchings for one in matching.baselines
    ]  # fmt: skip
    lines.append(table(["measure", "mean of pairs", "null", "by chance", "95 %", "p", "draws"], rows))
    for matching in found.matchings:
        lines.append(f"most alike by {matching.measure} (layer.head)")
        for (i, j), score in list(zip(matching.pairs, matching.scores))[:SHOWN]:
            (a, b), (c, d) = found.first.places[i], found.second.places[j]
            lines.append(f"  {found.first.label} {a}.{b}  {found.second.label} {c}.{d}  {score:.3f}")
    return "\n".join(lines)


def command(
    first: str,
    second: str,
    images: int = 256,
    data: str | None = None,
    pretrained: bool = True,
    framing: Frame = "crop",
    draws: int = 200,
    components: int = 6,
    clusters: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    out: Path = Path("reports/match"),
) -> None:
    """Pair the heads of two models by where they look, test the pairs against chance, and draw an atlas of both.

    Args:
        first: A checkpoint folder, torchvision:NAME, timm:NAME or hf:NAME.
        second: Another; the baselines exchange the offsets of this one's maps.
        images: Test images that a ViT's attention is averaged over (the paper: 256).
        data: Data set of those images; the one a ViT of ours was trained on if left out.
        pretrained: false gives both models random weights: what pairs of such maps are worth.
        framing: Offsets that are compared, "crop" (those both models have) or "pad" (those either has).
        draws: Random exchanges of offsets for each baseline; fewer for earth mover's between many heads.
        components: NMF components of the atlas.
        clusters: Clusters of the atlas; the number with the best silhouette if left out.
        seed: Of the baselines, the NMF and random weights.
        device: Where a ViT runs.
        out: Folder for match and atlas, each as .json, .png, .svg and .html.
    """
    line = command_line()
    maps = [read_offset_maps(spec, images=images, data=data, device=device, progress=True) for spec in (first, second)]
    frame = common_frame(maps[0], maps[1], framing)
    a, b = (shaped_heads(one, frame) for one in maps)
    found = Match(
        a, b, frame, framing, tuple(match(a, b, measure, draws=draws, seed=seed) for measure in MEASURES), seed, line
    )
    print(report(found))
    both = atlas((a, b), components=components, clusters=clusters, seed=seed, command=line)
    print(both.report())
    for path in [*found.save(out), *both.save(out)]:
        print(f"wrote {path}")
