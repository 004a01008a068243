"""Batches of image files for a device, made ahead of who uses them."""

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from fractions import Fraction
from importlib.util import find_spec
from typing import Any, TypeGuard

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from aft_lens.data.augment.draw import DRAWN, Augmentation
from aft_lens.data.files.ahead import Ahead
from aft_lens.data.files.device import DeviceMaker
from aft_lens.data.files.reader import BAD_FILES, Drawn, Files, Wanted
from aft_lens.data.files.slots import Slots
from aft_lens.data.files.turns import Turns
from aft_lens.data.source import EpochOrder, Transformed, share_size

MOST_WORKERS = 16
"""Processes that read files, where their number is left open."""
TRAINING, READING = Fraction(1, 20), Fraction(1, 28)
"""Share of the batches that a processor core decodes in time, in training and in passes without; the GPU decodes the
rest, and does nothing else meanwhile."""
STDERR = 2
"""The descriptor that decoders in C write to."""


def usable_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def nvjpeg_share(processes: int = 1, *, trains: bool = True) -> Fraction:
    """Share of the batches whose JPEG files nvJPEG decodes, where so many training processes share the machine.

    The number of workers, which decode the others, does not matter, so that a seed gives one run with any.
    """
    cores = usable_cores() // processes
    return max(Fraction(0), 1 - cores * (TRAINING if trains else READING))


def reading_workers(processes: int = 1) -> int:
    """Worker processes for files, of each of so many training processes of this machine: a core each, one left over."""
    return max(1, min(MOST_WORKERS, usable_cores() // processes - 1))


def made_on(device: torch.device, augmentation: Augmentation) -> bool:
    """Whether such images are decoded and made on that device: a CUDA device, with Triton; else by the workers."""
    fits = len(augmentation.mean) == 3 and augmentation.resampling in ("bilinear", "bicubic")
    return device.type == "cuda" and fits and find_spec("triton") is not None


def drawn_from_files(split: object) -> TypeGuard[Transformed]:
    """Whether a split is of image files with an augmentation that is drawn, so that `FileBatches` takes it."""
    return isinstance(split, Transformed) and isinstance(split.transform, Augmentation)


class FileBatches:
    """Batches (normalised images `b c y x`, classes `b`) of image files, on a device.

    Worker processes read files and draw what is random in them (`workers` 0: this process). For a CUDA device they
    decode and cut out what is shown, but nvJPEG decodes the JPEG files of a share of the batches (`nvjpeg`;
    `nvjpeg_share` if left out), between two steps of who asks; kernels augment, in threads and on streams of their own.
    For the CPU the workers do it all. The images have the same law, and for one draw they agree but for rounding and
    the decoders. With `order` (see `EpochOrder`) each pass takes
    its images, without the last incomplete batch; else it goes through the images in their order, and with a `share`
    (rank, processes) the parts are equally long: what was added has the label `UNCOUNTED`. `bad_files` says what
    becomes of files that cannot be read (`BAD_FILES`); `bad` has those that were skipped, and why. A pass can go on
    where another one was (`state_dict`). `dataset` is what the batches say that they are of; `device_made` overrides
    where images are made, for tests.
    """

    def __init__(
        self,
        split: Transformed,
        batch_size: int,
        *,
        device: torch.device | str = "cpu",
        workers: int = 0,
        order: EpochOrder | None = None,
        share: tuple[int, int] | None = None,
        bad_files: str = "stop",
        dataset: Any = None,
        device_made: bool | None = None,
        nvjpeg: Fraction | int | None = None,
    ) -> None:
        if bad_files not in BAD_FILES:
            raise ValueError(f"bad_files must be one of {BAD_FILES}, got {bad_files!r}")
        self.device = torch.device(device)
        if self.device.type == "cuda" and self.device.index is None:
            self.device = torch.device("cuda", torch.cuda.current_device())
        augmentation = split.transform
        if not isinstance(augmentation, Augmentation):
            raise ValueError(f"data.augment must be one of {DRAWN} for batches of files; set another one")
        self.on_device = made_on(self.device, augmentation) if device_made is None else device_made
        self.nvjpeg = Fraction(nvjpeg_share(trains=order is not None) if nvjpeg is None else nvjpeg)
        self.files = Files(split, augmentation, for_kernels=self.on_device, bad_files=bad_files)
        if self.on_device and workers:
            self.files.slots = Slots(workers, batch_size * 3 * self.files.most_pixels)
        if share is None:
            share = (0, 1) if order is None else (order.rank, order.num_replicas)
        self.batch_size, self.share, self.order, self.workers = batch_size, share, order, workers
        self.dataset = split if dataset is None else dataset
        self.bad: dict[str, str] = {}
        self.first = self.done = 0
        self.make = DeviceMaker(self.files, augmentation, self.device) if self.on_device else None
        self._ahead: Ahead | None = None
        self._turns = Turns(self.device)
        self._passes = _Passes()
        self._loader: DataLoader[Any] = DataLoader(
            self.files, batch_size=None, sampler=self._passes, num_workers=workers, collate_fn=_as_it_is,
            persistent_workers=workers > 0, generator=torch.Generator(), worker_init_fn=_begin_worker,
        )  # fmt: skip

    def __len__(self) -> int:
        count = self._images()
        return count // self.batch_size if self.order is not None else -(-count // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Begin a pass at once, in place of one that goes on."""
        self._turns.end()
        if self._ahead is not None:
            self._ahead.close()
        self.done = self.first
        if self.device.type != "cuda":
            return self._counted(map(self.finished, self.packed()), self._turns)
        self._turns = Turns(self.device)
        self._ahead = self.stages(self.device, self._turns)
        return self._counted(self._ahead, self._turns)

    def stages(self, device: torch.device, turns: Turns | None = None) -> Ahead:
        """A pass made ahead for a device: handed over by workers, decoded and augmented, by a thread each.

        nvJPEG has the device for itself by `turns`.
        """
        batches: Iterator[Any] = ((batch,) for batch in self.packed())
        if self.workers:  # without them one thread reads, and reads again what a decoder refuses
            batches = Ahead(batches, lambda item: item, device)
        make = self.make
        if make is None:
            return Ahead(batches, lambda item: self._there(item[0], item[0].images, device), device)

        def turn(item: tuple[Any]) -> AbstractContextManager[None]:
            """Batches that are still encoded wait for one."""
            return nullcontext() if turns is None or not any(item[0].lengths) else turns.alone()

        def images(item: tuple[Any, Tensor, Any]) -> tuple[Tensor, Tensor]:
            """The images of decoded pictures."""
            batch, decoded, places = item
            return self._there(batch, make.maker(decoded, places, batch.draws), device)

        pictures = Ahead(batches, lambda item: make.pictures(*item), device, waiting=1, turn=turn)
        return Ahead(pictures, images, device)

    def packed(self) -> Iterator[Any]:
        """A pass as the workers hand it on: packed batches for a GPU, else finished ones."""
        self._passes.batches = self._batches()
        if self.files.slots is not None:
            self.files.slots.recall()
        if self.workers:
            gc.collect()  # what is forgotten here must not wait for the workers' collector: see `_begin_worker`
        return iter(self._loader)

    def finished(self, batch: Any) -> tuple[Tensor, Tensor]:
        """A worker's batch as images and labels."""
        if self.make is None:
            images = batch.images
        else:
            batch, images = self.make(batch)
        return self._there(batch, images, self.device)

    def _there(self, batch: Any, images: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Images and labels on a device, once the batch's bad files are noted."""
        self.bad.update((each.path, each.why) for each in batch.bad)
        return images.to(device), batch.labels.to(device)

    def _counted(self, made: Iterator[tuple[Tensor, Tensor]], turns: Turns) -> Iterator[tuple[Tensor, Tensor]]:
        try:
            while True:
                with turns.between():
                    batch = next(made, None)
                if batch is None:
                    return
                self.done += 1
                yield batch
        finally:  # who stops in the middle leaves no thread behind
            turns.end()
            if isinstance(made, Ahead):
                made.close()

    def state_dict(self) -> dict[str, int]:
        """How many images of this pass all processes have had."""
        return {"images": self.done % len(self) * self.batch_size * self.share[1]}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin the next pass behind those."""
        self.first = state["images"] // (self.batch_size * self.share[1])

    def _images(self) -> int:
        """Images of a pass."""
        return len(self.order) if self.order is not None else share_size(len(self.files), self.share[1], filled=True)

    def _batches(self) -> list[Wanted]:
        """A pass, batch by batch, from batch `first` on, which is for this pass alone."""
        if self.order is not None:
            drawn: Sequence[Drawn] = list(self.order)
        else:
            rank, processes = self.share
            numbers = range(rank, self._images() * processes, processes)
            drawn = [(index if index < len(self.files) else -1, None) for index in numbers]
        first, self.first = self.first, 0
        size = self.batch_size
        return [Wanted(drawn[at * size : at * size + size], self._by_nvjpeg(at)) for at in range(first, len(self))]

    def _by_nvjpeg(self, batch: int) -> bool:
        """Whether nvJPEG decodes a batch: its share of them, evenly spread."""
        return int((batch + 1) * self.nvjpeg) > int(batch * self.nvjpeg)


def batches_of(
    split: Any, batch_size: int, *, device: torch.device | str = "cpu", dataset: Any = None
) -> DataLoader[Any] | FileBatches:
    """All images of a split in their order, in batches (images, labels), for a model on that device.

    Files come to a GPU through worker processes, on it; for the CPU they are read here, by who runs the model. A file
    that cannot be read raises ImageError.
    """
    if not drawn_from_files(split):
        return DataLoader(split, batch_size)
    workers = reading_workers() if torch.device(device).type == "cuda" else 0
    return FileBatches(split, batch_size, device=device, workers=workers, dataset=dataset)


class _Passes(Sampler[Any]):
    """The batches of the pass that begins."""

    def __init__(self) -> None:
        self.batches: list[Wanted] = []

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)


def _begin_worker(number: int) -> None:
    """Let a worker never collect what it has from the process that forked it: tensors of a GPU, which it cannot free,
    would end it. A decoder's warnings, which name no file, are not shown; what goes wrong is told to who waits."""
    gc.freeze()
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), STDERR)


def _as_it_is(batch: Any) -> Any:
    return batch
