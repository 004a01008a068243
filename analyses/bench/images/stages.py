"""Each stage of the way from image files to a training step, alone: read, decode, augment, copy; and the loader."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
PRODUCTS = 100
"""Matrix products of a graph that keeps the GPU busy."""
SECONDS = 1.0
"""That a stage is measured for, at least."""


def file_batches(folder: Path, batch: int, workers: int, device: torch.device, augment: str) -> FileBatches:
    """The loader that training uses."""
    train: Any = load_data(f"folder:{folder}", img_size=SIDE, augment=augment).train
    order = EpochOrder(train, lambda: 0, processes=1, rank=0)
    return FileBatches(train, batch, device=device, workers=workers, order=order)


def stages(folder: Path, batch: int, workers: int, device: torch.device, augment: str) -> Iterator[Stage]:
    """The stages of one augmentation; without CUDA reading alone, which does it all."""
    loader, where = file_batches(folder, batch, workers, device, augment), f"{workers} processes"
    make = loader.make
    if make is None:
        yield Stage(f"read, decode, augment ({augment})", _read(loader, batch, workers)[0], where)
        return
    rate, packed = _read(loader, batch, workers)
    yield Stage(f"read, draw ({augment})", rate, where)
    decoder = type(make.decoder).__name__
    yield Stage("decode", _rate(make.decode, packed, batch), decoder)
    with busy(device):
        yield Stage("decode, beside products", _rate(make.decode, packed, batch), decoder)
    there = [make.pictures(each) for each in packed[:4]]
    augmented = _rate(lambda each: make.maker(each[1], each[2], each[0].draws), there, batch)
    yield Stage(f"augment ({augment})", augmented, "kernels")


@contextmanager
def busy(device: torch.device) -> Iterator[None]:
    """Keep a GPU at matrix products, of some 0.2 ms each on an H200, as training would."""
    one, other = (torch.randn(4096, 4096, device=device, dtype=torch.bfloat16) for _ in range(2))
    stream, ended = torch.cuda.Stream(device), threading.Event()
    stream.wait_stream(torch.cuda.current_stream(device))

    def multiply() -> None:
        """Two graphs of products ahead, until the end."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(stream):
            torch.mm(one, other)
            stream.synchronize()
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                for _ in range(PRODUCTS):
                    torch.mm(one, other)
            launched: list[torch.cuda.Event] = []
            while not ended.is_set():
                graph.replay()
                launched.append(stream.record_event(torch.cuda.Event(blocking=True)))
                if len(launched) > 2:
                    launched.pop(0).synchronize()
            stream.synchronize()

    thread = threading.Thread(target=multiply)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


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
            kept.append(made)
    return count / (time.perf_counter() - started), kept


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
