"""How fast and how large operators and training are: `aft-lens bench ops`, `bench gpu` and `bench multi_gpu`."""

from importlib import import_module
from pathlib import Path
from typing import Literal

JOBS = {
    "ops": "operators.run",
    "gpu": "gpu.run",
    "gpu_table": "gpu.result",
    "multi_gpu": "multi_gpu.run",
    "multi_gpu_table": "multi_gpu.result",
}
"""Module whose `command` does each job: what draws is loaded only where it is asked for."""
TABLES = ("gpu_table", "multi_gpu_table")


def command(
    what: Literal["ops", "gpu", "multi_gpu", "gpu_table", "multi_gpu_table"],
    *,
    out: Path | None = None,
    quick: bool = False,
) -> None:
    """Measure, print and save; or print what was measured.

    Args:
        what: "ops" compares the operators on the CPU, "gpu" the kernels and models on one GPU, "multi_gpu" trains on
            as many as there are. "gpu_table" and "multi_gpu_table" print the saved results as Markdown, and draw the
            former's figure anew, without a GPU.
        out: Folder for the JSON and figures; if left out results/ below the folder one stands in, in a checkout
            analyses/results. Tables of what is not measured there are those that are published.
        quick: A small run of every part, to see that it works; its figures are not for publishing.
    """
    module = import_module(f"analyses.bench.{JOBS[what]}")
    if what not in TABLES:
        module.command(out=out, quick=quick)
    elif quick:
        raise ValueError(f"bench {what} measures nothing and has no quick run; leave out --quick")
    else:
        module.command(out=out)
