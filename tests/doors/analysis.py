"""An analysis of another package, command and page, found by `mirror = "analysis"` in the group aft_lens.analyses."""

from dataclasses import dataclass, replace
from pathlib import Path

from aft_lens.checkpoint import load_checkpoint
from analyses.bias import position_bias_maps
from analyses.command import report
from analyses.maps.head_maps import HeadMaps
from analyses.maps.result import MapResult
from analyses.result import Table


@dataclass(frozen=True)
class Mirror(MapResult):
    """How far the maps of exp(w) - 1 are from their mirror images."""

    maps: HeadMaps
    name, title = "mirror", "A map less its mirror image"

    def head_maps(self, label=""):
        return self.maps

    def record(self):
        return {"difference": self.maps.values}

    def table(self):
        return Table(["layer", "largest"], [[str(i), f"{row.max():.3f}"] for i, row in enumerate(self.maps.values)])


def show(checkpoint: Path) -> Mirror:  # the page
    maps = position_bias_maps(load_checkpoint(checkpoint).model).head_maps()
    return Mirror(replace(maps, values=maps.values - maps.values[..., ::-1]))


def command(checkpoint: Path, out: Path = Path("reports/mirror")) -> None:
    """Print and save how far a model's maps are from their mirror images."""
    report(show(checkpoint), out)
