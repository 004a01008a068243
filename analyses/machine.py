"""What a measurement ran on, and where it is published."""

import os
import platform
import shlex
from pathlib import Path
from typing import Any

import torch

from aft_lens.checkpoint import versions

RESULTS = Path(__file__).parent / "results"
"""Where published figures live."""


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


def command_line(name: str, *arguments: object, **options: object) -> str:
    """The `aft-lens` line of a subcommand with these arguments; options that are None are left out."""
    words = ["aft-lens", name, *(str(argument) for argument in arguments)]
    for option, value in options.items():
        if value is not None:
            shown = str(value).lower() if isinstance(value, bool) else str(value).replace("(", "[").replace(")", "]")
            words += [f"--{option}", shown]
    return shlex.join(words)
