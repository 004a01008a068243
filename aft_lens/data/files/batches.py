"""Batches of image files for a device, made ahead of who uses them."""

import gc
import os
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any, TypeGuard

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from aft_lens.data.augment.draw import DRAWN, Augmentation
from aft_lens.data.files.ahead import Ahead, Spent
from aft_lens.data.files.device import DeviceMaker
from aft_lens.data.files.reader import BAD_FILES, Drawn, Files
from aft_lens.data.source import EpochOrder, Transformed, share_size

MOST_WORKERS = 16
"""Processes that read files, where their number is left open."""
STDERR = 2
"""The descriptor that decoders in C write to."""


def usable_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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

    Worker processes read files and draw what is random in them (`workers` 0: this process). A CUDA device decodes JPEG
    files (`decoder_for`) and augments, in threads and on streams of their own. For the CPU the workers do it all. The
    images have the same law, and for one draw they agree but for rounding and the decoders. With `order` (see
    `EpochOrder`) each pass takes its images, without the last incomplete batch; else it goes through the images in
    their order, and with a `share` (rank, processes) the parts are equally long: what was added has the label
    `UNCOUNTED`. `bad_files` says what becomes of files that cannot be read (`BAD_FILES`); `bad` has those that were
    skipped, and why. A pass can go on where another one was (`state_dict`). `dataset` is what the batches say that they
    are of; `device_made` overrides where images are made, for tests.
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
        self.files = Files(split, augmentation, encoded=self.on_device, bad_files=bad_files)
        if share is None:
            share = (0, 1) if order is None else (order.rank, order.num_replicas)
        self.batch_size, self.share, self.order, self.workers = batch_size, share, order, workers
        self.dataset = split if dataset is None else dataset
        self.bad: dict[str, str] = {}
        self.first = self.done = 0
        self.make = DeviceMaker(self.files, augmentation, self.device) if self.on_device else None
        self._ahead: Ahead | None = None
        self._spent: dict[str, Spent] = {}
        self._forked = False
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
        if self._ahead is not None:
            self._ahead.close()
        self.done = self.first
        if self.device.type != "cuda":
            return self._counted(map(self.finished, self.packed()))
        self._ahead = self.stages(self.device)
        return self._counted(self._ahead)

    def stages(self, device: torch.device) -> Ahead:
        """A pass made ahead for a device: handed over by workers, decoded and augmented, by a thread each."""
        batches: Iterator[Any] = ((batch,) for batch in self.packed())
        if self.workers:  # without them one thread reads, and reads again what a decoder refuses
            batches = Ahead(batches, lambda item: item, device)
        make = self.make
        if make is None:
            last = Ahead(batches, lambda item: self._there(item[0], item[0].images, device), device)
            self._spent = {"reading": last.spent, "copying": last.spent}
        else:

            def images(item: tuple[Any, Tensor, Any]) -> tuple[Tensor, Tensor]:
                """The images of decoded pictures."""
                batch, decoded, places = item
                return self._there(batch, make.maker(decoded, places, batch.draws), device)

            pictures = Ahead(batches, lambda item: make.pictures(*item), device, waiting=1)
            last = Ahead(pictures, images, device)
            self._spent = {"reading": pictures.spent, "decoding": pictures.spent, "augmenting": last.spent}
        if isinstance(batches, Ahead):
            self._spent["reading"] = batches.spent
        return last

    @property
    def milliseconds(self) -> dict[str, float]:
        """What each stage of the newest pass has taken for a batch: they work at the same time, the longest counts."""
        return {
            name: 1e3 * (spent.waited if name == "reading" else spent.worked) / spent.items
            for name, spent in self._spent.items()
            if spent.items
        }

    def packed(self) -> Iterator[Any]:
        """A pass as the workers hand it on: packed batches for a GPU, else finished ones."""
        self._passes.batches = self._batches()
        if self.workers and not self._forked:
            gc.collect()  # what is forgotten here must not wait for the workers' collector: see `_begin_worker`
            self._forked = True
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

    def _counted(self, made: Iterator[Any]) -> Iterator[tuple[Tensor, Tensor]]:
        try:
            for batch in made:
                self.done += 1
                yield batch
        finally:  # who stops in the middle leaves no thread behind
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

    def _batches(self) -> list[list[Drawn]]:
        """A pass, batch by batch, from batch `first` on, which is for this pass alone."""
        if self.order is not None:
            drawn: Sequence[Drawn] = list(self.order)
        else:
            rank, processes = self.share
            numbers = range(rank, self._images() * processes, processes)
            drawn = [(index if index < len(self.files) else -1, None) for index in numbers]
        first, self.first = self.first, 0
        starts = range(first * self.batch_size, len(self) * self.batch_size, self.batch_size)
        return [list(drawn[start : start + self.batch_size]) for start in starts]


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
        self.batches: list[list[Drawn]] = []

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
