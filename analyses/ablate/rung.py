"""What a head can be replaced by, from its whole average down to nothing."""

import re
from dataclasses import dataclass

KINDS = {
    "attention": "its own attention",
    "map": "its own map",
    "offsets": "its {} strongest offsets",
    "centre": "the {} offsets nearest to the target",
    "random": "{} offsets drawn at random",
    "rank": "its offset number {} by strength alone",
    "kernel": "a 3 x 3 depth-wise kernel",
    "uniform": "uniform attention",
    "mean": "its mean output",
    "resample": "its output on another image",
    "zero": "nothing",
}
"""By kind, in words. attention: what it did, a check that changes nothing. map: attention averaged over images by
offset. offsets, centre, random: so many offsets of that map, the last two as controls. rank: one of them, counted from
the strongest. kernel: each channel's own
kernel, fitted by least squares. The others are ablations: nothing of the head's places is left."""
ONE = {
    "offsets": "its strongest offset",
    "centre": "the offset nearest to the target",
    "random": "an offset drawn at random",
    "rank": "its strongest offset alone",
}
"""Kinds with a number of offsets, in words where it is 1."""
COUNTED = tuple(ONE)
ABLATIONS = ("uniform", "mean", "resample", "zero")


@dataclass(frozen=True, order=True)
class Rung:
    """A kind of replacement; `offsets:4` in commands."""

    kind: str
    """Of `KINDS`."""
    offsets: int = 0
    """How many of the map's offsets are kept, or which of them by rank, for the kinds of `COUNTED`; 0 for others."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS or (self.kind in COUNTED) != (self.offsets > 0):
            raise ValueError(f"{UNKNOWN}, got {self.name!r}")

    @classmethod
    def read(cls, text: str) -> "Rung":
        """From its name; ValueError says which there are."""
        found = re.fullmatch(r"(\w+)(?::(\d+))?", text)
        if not found:
            raise ValueError(f"{UNKNOWN}, got {text!r}")
        return cls(found[1], int(found[2] or 0))

    @property
    def name(self) -> str:
        """As commands take it."""
        return f"{self.kind}:{self.offsets}" if self.kind in COUNTED else self.kind

    @property
    def words(self) -> str:
        """As tables and figures say it."""
        return ONE[self.kind] if self.offsets == 1 else KINDS[self.kind].format(self.offsets)


UNKNOWN = (
    "a replacement must be one of "
    + ", ".join(f"{kind}:K" if kind in COUNTED else kind for kind in KINDS)
    + " with K of 1 or more"
)
