"""How fast and how large the operators are: `aft-lens bench ops` on a CPU, `aft-lens bench gpu` on a GPU."""

from importlib import import_module
from pathlib import Path
from typing import Literal


def command(what: Literal["ops", "gpu"], *, out: Path | None = None, quick: bool = False) -> None:
    """Measure, print and save.

    Args:
        what: "ops" compares the operators on the CPU, "gpu" the kernels on a GPU.
        out: Folder for the JSON and figures; left out, the published ones in analyses/results.
        quick: A small run of every part, to see that it works; its figures are not for publishing.
    """
    import_module(f"analyses.bench.{what}").command(out=out, quick=quick)
