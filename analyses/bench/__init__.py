"""How fast and how large operators and training are: `aft-lens bench ops`, `gpu`, `causal`, `images`, `multi_gpu`."""

from importlib import import_module
from pathlib import Path
from typing import Literal

JOBS = {
    "ops": "operators.run",
    "gpu": "gpu.run",
    "gpu_table": "gpu.result",
    "causal": "causal.run",
    "causal_table": "causal.result",
    "images": "images.run",
    "images_table": "images.result",
    "multi_gpu": "multi_gpu.run",
    "generation": "generation.run",
    "sweep": "sweep.run",
    "multi_gpu_table": "multi_gpu.result",
}
"""Module whose `command` does each job: what draws is loaded only where it is asked for."""
TABLES = ("gpu_table", "causal_table", "images_table", "multi_gpu_table")


def command(
    what: Literal[
        "ops",
        "gpu",
        "causal",
        "images",
        "multi_gpu",
        "generation",
        "sweep",
        "gpu_table",
        "causal_table",
        "images_table",
        "multi_gpu_table",
    ],
    *,
    out: Path | None = None,
    quick: bool = False,
    data: Literal["memory", "files"] = "memory",
) -> None:
    """Measure, print and save; or print what was measured.

    Args:
        what: "ops" compares the operators on the CPU, "gpu" the kernels and models on one GPU, "causal" the causal
            operators and decoders with attention's, "images" the way from image files to training, "multi_gpu" trains
            on as many as there are, "generation" times decoders that write, on the GPU or else the CPU, "sweep"
            the same cells in one process and on Ray. "gpu_table", "causal_table", "images_table" and "multi_gpu_table"
            print the saved results as Markdown, and draw the figures of the first two anew, without a GPU.
        out: Folder for the JSON and figures; if left out results/ below the folder one stands in, in a checkout
            analyses/results. Tables of what is not measured there are those that are published.
        quick: A small run of every part, to see that it works; its figures are not for publishing.
        data: Of multi_gpu, "files" trains from JPEG files beside the same from memory.
    """
    if data == "files" and what != "multi_gpu":
        raise ValueError(f"bench {what} has no --data; multi_gpu has memory and files")
    module = import_module("analyses.bench.multi_gpu.files" if data == "files" else f"analyses.bench.{JOBS[what]}")
    if what not in TABLES:
        module.command(out=out, quick=quick)
    elif quick:
        raise ValueError(f"bench {what} measures nothing and has no quick run; leave out --quick")
    else:
        module.command(out=out)
