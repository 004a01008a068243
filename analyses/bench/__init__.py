"""How fast and how large operators and training are: `aft-lens bench ops`, `bench gpu` and `bench multi_gpu`."""

from importlib import import_module
from pathlib import Path
from typing import Literal


def command(what: Literal["ops", "gpu", "multi_gpu"], *, out: Path | None = None, quick: bool = False) -> None:
    """Measure, print and save.

    Args:
        what: "ops" compares the operators on the CPU, "gpu" the kernels and models on one GPU, "multi_gpu" trains on
            as many as there are.
        out: Folder for the JSON and figures; left out, the published ones in analyses/results.
        quick: A small run of every part, to see that it works; its figures are not for publishing.
    """
    import_module(f"analyses.bench.{what}").command(out=out, quick=quick)
