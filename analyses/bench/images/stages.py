"""Each stage of the way from image files to a training step, alone: read, decode, augment, copy; and the loader."""

import os
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from aft_lens.data import EpochOrder, FileBatches, load_data
from aft_lens.data.files.reader import Packed
from analyses.bench.images.record import Stage

SIDE = 224
PACKED = 16
"""Batches that the stages after reading go through again and again."""
SECONDS = 1.0
"""That a stage is measured for, at least."""


def file_batches(folder: Path, batch: int, workers: int, device: torch.device, augment: str) -> FileBatches:
    """The loader that training uses."""
    train: Any = load_data(f"folder:{folder}", img_size=SIDE, augment=augment).train
    order = EpochOrder(train, lambda: 0, processes=1, rank=0)
    return FileBatches(train, batch, device=device, workers=workers, order=order)


def stages(folder: Path, batch: int, workers: int, device: torch.device, augment: str) -> Iterator[Stage]:
    """The stages of one augmentation; on a machine without CUDA, reading alone, which then does everything."""
    loader = file_batches(folder, batch, workers, device, augment)
    count, started = 0, 0.0
    packed: list[Packed] = []
    for number, made in enumerate(loader.packed()):
        if number == workers:  # what the workers had made before they were asked for more is not counted
            started = time.perf_counter()
        elif number > workers:
            count += batch
        if len(packed) < PACKED:
            packed.append(made)
    on_cpu = "read, draw" if loader.on_device else "read, decode, augment"
    yield Stage(f"{on_cpu} ({augment})", count / (time.perf_counter() - started), f"{workers} processes")
    if loader.make is None:
        return
    make = loader.make
    yield Stage("decode", _rate(lambda each: make.decode(each), packed, batch), "nvJPEG")
    pictures = [(torch.cat([p.flatten() for p in make.decode(each) or []]), each) for each in packed[:4]]

    def augmented(pair: tuple[torch.Tensor, Packed]) -> None:
        sizes = [3 * rows * columns for rows, columns in pair[1].sizes]
        starts = torch.tensor([0, *sizes]).cumsum(0)[[at for at in pair[1].order]]
        make.maker(pair[0], starts.numpy(), pair[1].draws)

    yield Stage(f"augment ({augment})", _rate(augmented, pictures, batch), "kernels")
    pinned = [torch.empty(batch, 3, SIDE, SIDE, dtype=torch.uint8).pin_memory() for _ in range(4)]
    copy = _rate(lambda each: each.to(device, non_blocking=True), pinned, batch)
    yield Stage("copy of finished images", copy, "bytes, pinned")


def loader_alone(
    folder: Path, batch: int, workers: int, device: torch.device, augment: str, passes: int
) -> tuple[Stage, list[float]]:
    """Images a second of the last of some passes over all files with nobody else on the device, and host memory."""
    loader = file_batches(folder, batch, workers, device, augment)
    memory, rate = [], 0.0
    for _ in range(passes):
        started, count = time.perf_counter(), 0
        for images, _ in loader:
            count += len(images)
        _finish(device)
        rate = count / (time.perf_counter() - started)
        memory.append(host_memory())
    return Stage(f"whole loader ({augment})", rate, f"{workers} processes and {device.type}"), memory


def host_memory() -> float:
    """Proportional set size of this process and its children, MiB; 0 where the system does not say."""
    own = os.getpid()
    total = 0.0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if int(folder.name) != own and parent != own:
                continue
            lines = (folder / "smaps_rollup").read_text().splitlines()
        except (OSError, ValueError, IndexError):  # gone since
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
    return total


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _rate(call: Callable[[Any], Any], items: list[Any], batch: int) -> float:
    """Images a second of calls that take the items in turn."""
    for item in islice(items, 3):
        call(item)
    _finish(torch.device("cuda"))
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < SECONDS:
        for item in items:
            call(item)
        _finish(torch.device("cuda"))
        count += len(items) * batch
    return count / (time.perf_counter() - started)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
