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


def file_batches(
    folder: Path, batch: int, workers: int, device: torch.device, augment: str, nvjpeg: int | None = None
) -> FileBatches:
    """The loader that training uses; `nvjpeg` as `FileBatches` has it."""
    train: Any = load_data(f"folder:{folder}", img_size=SIDE, augment=augment).train
    order = EpochOrder(train, lambda: 0, processes=1, rank=0)
    return FileBatches(train, batch, device=device, workers=workers, order=order, nvjpeg=nvjpeg)


def stages(folder: Path, batch: int, workers: int, device: torch.device, augment: str) -> Iterator[Stage]:
    """The stages of one augmentation, by both decoders of JPEG files; without CUDA reading alone, which does it all."""
    where, own = f"{workers} processes", file_batches(folder, batch, 0, device, augment).nvjpeg
    by_workers, by_nvjpeg = (file_batches(folder, batch, workers, device, augment, nvjpeg) for nvjpeg in (0, 1))
    make = by_workers.make
    if make is None:
        yield Stage(f"read, decode, augment ({augment})", _read(by_workers, batch, workers)[0], where)
        return
    rate, pictures = _read(by_workers, batch, workers)
    yield Stage(f"read, decode, cut ({augment})", rate, where, float(1 - own))
    rate = _rate(make.pictures, pictures, batch)
    yield Stage("copy of pictures", rate, "bytes, by way of pinned memory", float(1 - own))
    rate, files = _read(by_nvjpeg, batch, workers)
    yield Stage(f"read ({augment})", rate, where, float(own))
    yield Stage("decode", _rate(make.decode, files, batch), "nvJPEG", float(own))
    there = [make.pictures(each) for each in pictures[:4]]
    augmented = _rate(lambda each: make.maker(each[1], each[2], each[0].draws), there, batch)
    yield Stage(f"augment ({augment})", augmented, "kernels")


def _read(loader: FileBatches, batch: int, workers: int) -> tuple[float, list[Packed]]:
    """Images a second that the workers hand over, and the first batches."""
    count, started = 0, 0.0
    kept: list[Packed] = []
    for number, made in enumerate(loader.packed()):
        if number == workers:  # what the workers had made before they were asked for more is not counted
            started = time.perf_counter()
        elif number > workers:
            count += batch
        if len(kept) < PACKED:
            if isinstance(made, Packed):
                made.content.keep()  # its worker needs the memory
            kept.append(made)
    return count / (time.perf_counter() - started), kept


def loader_alone(
    folder: Path, batch: int, workers: int, device: torch.device, augment: str, passes: int, nvjpeg: int | None = None
) -> tuple[Stage, list[float]]:
    """Images a second of the last of some passes over all files with nobody else on the device, and host memory."""
    loader = file_batches(folder, batch, workers, device, augment, nvjpeg)
    memory, rate = [], 0.0
    for _ in range(passes):
        started, count = time.perf_counter(), 0
        for images, _ in loader:
            count += len(images)
        _finish(device)
        rate = count / (time.perf_counter() - started)
        memory.append(host_memory())
    decoder = {None: "", 0: ", workers decode", 1: ", nvJPEG decodes"}[nvjpeg]
    stage = Stage(
        f"whole loader ({augment}{decoder})", rate, f"{workers} processes and {device.type}", float(nvjpeg is None)
    )
    return stage, memory


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
