"""What a result was made with: the command line, the hardware, the versions; and where results are published."""

import os
import platform
from pathlib import Path
from typing import Any

import torch

from aft_lens.checkpoint import versions
from analyses.line import command_line, commanded

__all__ = [
    "PUBLISHED",
    "RESULTS",
    "command_line",
    "commanded",
    "environment",
    "hardware",
    "made_by",
    "results_from",
    "visible_gpu",
]

PUBLISHED = Path(__file__).parent / "results"
"""The figures that are published: they ship with the package."""


def results_from(here: Path) -> Path:
    """`RESULTS` of a process that is started in a folder."""
    source = PUBLISHED.parents[1]
    return PUBLISHED if (source / "pyproject.toml").is_file() and here.is_relative_to(source) else Path("results")


RESULTS = results_from(Path.cwd())
"""Where figures go that may be published, unless another folder is given: below the folder one stands in; for who
stands in the source tree, which a maintainer does, its own."""


def hardware(device: str | torch.device = "cpu") -> str:
    """Name of the GPU, or of the processor with its number of cores."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or 'CPU'}, {os.cpu_count()} cores"


def visible_gpu(number: int) -> str | None:
    """The GPU, as CUDA_VISIBLE_DEVICES names it, of the process of that number: in turn over all; None without any."""
    count = torch.cuda.device_count()
    if count == 0:
        return None
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = named.split(",") if named else [str(i) for i in range(count)]
    return names[number % count]


def environment(device: str | torch.device = "cpu") -> dict[str, Any]:
    """Hardware and versions, as every published record has them."""
    return {"hardware": hardware(device), "versions": versions()}


def made_by(device: str | torch.device = "cpu") -> dict[str, Any]:
    """The command line, hardware and versions: what every record starts with."""
    return {"command": command_line(), **environment(device)}
