"""What every data set is handed over as, and the order in which training draws it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Subset

UNCOUNTED = -1
"""Label of an item that no metric counts: it only fills a process's share, or it has no class."""
DRAW_SEED = 0
"""Of the images that stand for a split whose files come sorted by class."""


def epoch_seed(seed: int, epoch: int) -> int:
    """The random state of an epoch, the same in every process."""
    return seed * 1_000_003 + epoch


def share_size(images: int, processes: int, *, filled: bool) -> int:
    """Images each of the processes gets, equally many: `filled` up to that number, or else without the remainder."""
    return -(-images // processes) if filled else images // processes


@dataclass(frozen=True)
class DataSource:
    """A data set by name with its splits; items are (normalised image `c y x`, class index)."""

    name: str
    classes: list[str]
    mean: list[float]
    """By channel, in [0, 1] image units."""
    std: list[float]
    """By channel, in [0, 1] image units."""
    in_chans: int
    img_size: int
    """Side of the square images, in pixels."""
    train: "Images | Transformed"
    val: "Images | Transformed"
    test: "Images | Transformed"
    split: str
    """How the splits were made, in words."""

    def __repr__(self) -> str:
        """A line on it, in place of its images."""
        return (
            f"{self.name}: {len(self.train):,} training, {len(self.val):,} validation and {len(self.test):,} test "
            f"images of {self.in_chans} x {self.img_size} x {self.img_size}, {len(self.classes)} classes"
        )

    def record(self) -> dict[str, Any]:
        """What a checkpoint keeps of its data."""
        keys = ("name", "classes", "mean", "std", "in_chans", "img_size")
        return {key: getattr(self, key) for key in keys}

    def joined(self) -> "DataSource":
        """The same with its validation images in the training split too.

        Raises ValueError where splits are read from files.
        """
        train, val = self.train, self.val
        if not isinstance(train, Images) or not isinstance(val, Images):
            raise ValueError(
                f"data.held_out false is for data sets in memory, {self.name!r} is read from files; move the "
                "validation images into the training folder"
            )
        images, labels = torch.cat([train.images, val.images]), torch.cat([train.labels, val.labels])
        return replace(self, train=Images(images, labels, train.transform), split=f"{self.split}, which are trained on")

    def check_fits(self, record: Mapping[str, Any]) -> None:
        """ValueError unless a model trained on the data of such a record can be measured on this one."""
        given, own = list(record.get("classes", self.classes)), list(self.classes)
        differ = next((i for i, (one, other) in enumerate(zip(given, own, strict=False)) if one != other), None)
        if len(given) != len(own):
            what = f"{len(own)} classes, the model's data {len(given)}"
        elif differ is not None:
            what = f"other classes: number {differ} is {own[differ]!r}, the model's {given[differ]!r}"
        elif self.in_chans != record.get("in_chans", self.in_chans):
            what = f"{self.in_chans} channels, the model's data {record['in_chans']}"
        else:
            return
        raise ValueError(f"data {self.name!r} has {what}; choose --data that fits")


class Images(Dataset[tuple[Tensor, int]]):
    """Images held in memory, `n c y x` uint8, and their classes `n`, with a transform applied on reading."""

    def __init__(self, images: Tensor, labels: Tensor, transform: Any) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), int(self.labels[index])


class Transformed(Dataset[tuple[Tensor, int]]):
    """A subset of an (image, label) data set, with a transform applied on reading.

    `source` has its labels in `targets`, as torchvision's data sets have, and its files in `samples` or `files`; one
    without files gives pictures when it is indexed.
    """

    def __init__(self, source: Any, transform: Any, indices: list[int] | None = None) -> None:
        self.source, self.transform = source, transform
        self.indices = list(range(len(source))) if indices is None else indices

    @cached_property
    def labels(self) -> Tensor:
        """The class of each image, read from no file."""
        return torch.as_tensor(self.source.targets)[self.indices]

    def path(self, index: int) -> str | None:
        """The file of an image; None where the source does not say."""
        number = self.indices[index]
        if hasattr(self.source, "samples"):
            return str(self.source.samples[number][0])
        return str(self.source.files[number]) if hasattr(self.source, "files") else None

    def some(self, indices: Sequence[int]) -> "Transformed":
        """Some of the images, by their numbers here."""
        return Transformed(self.source, self.transform, [self.indices[index] for index in indices])

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.source[self.indices[index]]
        return self.transform(image), int(label)


def some(split: Images | Transformed, indices: Sequence[int]) -> "Subset[tuple[Tensor, int]] | Transformed":
    """Some images of a split, by their numbers; of files as a split of files."""
    return split.some(indices) if isinstance(split, Transformed) else Subset(split, indices)


def representative(split: Images | Transformed, count: int | None) -> list[int]:
    """Indices of `count` images (all if None, or if there are no more) that stand for a split.

    The first ones, where the classes are mixed as in digits or Fashion-MNIST. Files come sorted by class: of those, a
    fixed draw with each class's share, at least one of each where `count` allows, class by class in turn; a smaller
    count gives the beginning of a larger one's.
    """
    total = len(split)
    if count is None or count >= total:
        return list(range(total))
    labels = split.labels
    if bool((labels.diff() < 0).any()):
        return list(range(count))
    order = torch.randperm(total, generator=torch.Generator().manual_seed(DRAW_SEED))
    drawn = labels[order]
    share = torch.empty(total, dtype=torch.float64)
    for label in labels.unique():
        own = (drawn == label).nonzero().flatten()
        share[own] = torch.arange(len(own), dtype=torch.float64) / len(own)
    return order[share.argsort(stable=True)[:count]].tolist()


class EqualShares(Dataset[tuple[Tensor, int]]):
    """A data set lengthened so that all processes get as many items; those added have the label `UNCOUNTED`."""

    def __init__(self, data: "Images | Transformed", processes: int) -> None:
        self.data, self.length = data, share_size(len(data), processes, filled=True) * processes

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index < len(self.data):
            return self.data[index]
        return self.data[0][0], UNCOUNTED


class Seeded(Dataset[tuple[Tensor, int]]):
    """A data set read by (index, seed): what is random in an item depends on its seed alone.

    Neither the process that reads it, nor what that process read before, nor its own random state, which stays as it
    was, changes an item. So a run ends in the same weights with any number of loader processes, resumed or not.
    """

    def __init__(self, data: "Images | Transformed") -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, drawn: tuple[int, int]) -> tuple[Tensor, int]:
        index, seed = drawn
        before = torch.get_rng_state()
        torch.default_generator.manual_seed(seed)
        try:
            return self.data[index]
        finally:
            torch.set_rng_state(before)


class EpochOrder(DistributedSampler[Any]):
    """A new order of (index, seed) for `Seeded` at each pass, as `order` says, which is called for a number a pass.

    With `repeats` each drawn image comes so often in a row, every time with another seed, and a pass is as long as the
    data set (repeated augmentation, Hoffer et al. 2020, in DeiT). The order is dealt out in turn, so that neighbours,
    the same image, go to different processes. Raises ValueError if `repeats` is below 1.
    """

    def __init__(
        self,
        data: "Images | Transformed",
        order: Callable[[], int],
        *,
        repeats: int = 1,
        processes: int = 1,
        rank: int = 0,
    ) -> None:
        if repeats < 1:
            raise ValueError(f"repeats must be at least 1, got {repeats}")
        super().__init__(data, num_replicas=processes, rank=rank)
        self.order, self.repeats = order, repeats
        self.first = 0
        """Images of this process that the next pass leaves out: it had them before it was broken off."""

    def __iter__(self) -> Iterator[Any]:
        generator = torch.Generator().manual_seed(self.order())
        drawn = torch.randperm(self.total_size, generator=generator)[: -(-self.total_size // self.repeats)]
        seeds = torch.randint(2**62, (self.total_size,), generator=generator)
        index = drawn.repeat_interleave(self.repeats)[: self.total_size] % len(self.dataset)  # type: ignore[arg-type]
        dealt = slice(self.rank, self.total_size, self.num_replicas)
        first, self.first = self.first, 0
        return iter(list(zip(index[dealt].tolist(), seeds[dealt].tolist()))[first:])


class Resumable(DataLoader[Any]):
    """A loader of whole batches in an `EpochOrder`, of which a pass can go on where another one was."""

    def __init__(self, data: Dataset[Any], batch_size: int, order: EpochOrder, **options: Any) -> None:
        super().__init__(data, batch_size, sampler=order, drop_last=True, **options)
        self.order, self.done = order, 0

    def __iter__(self) -> Any:
        self.done = self.order.first // self._images()
        for batch in super().__iter__():
            self.done += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """How many images of this pass all processes have had."""
        return {"images": self.done % len(self) * self._images() * self.order.num_replicas}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin the next pass behind those."""
        self.order.first = state["images"] // self.order.num_replicas

    def _images(self) -> int:
        """Of a batch."""
        assert self.batch_size is not None
        return self.batch_size
