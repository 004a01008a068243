"""What sequences are handed over as: splits that are drawn from in windows and measured symbol by symbol."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
from jaxtyping import Int, UInt8
from torch import Tensor


class Window(NamedTuple):
    """Windows that are measured: `length + 1` symbols each, of which all but the first are predicted."""

    symbols: Int[Tensor, "b t"]
    """The start stands before the first symbol of an image or text."""
    counted: int
    """The predictions from this one on count; those before it only give context."""


class Split(Protocol):
    """One split of sequences."""

    def __len__(self) -> int:
        """Windows that an epoch trains on."""

    def to(self, device: torch.device | str) -> "Split":
        """The same on a device."""

    def drawn(self, index: Int[Tensor, "b"]) -> Int[Tensor, "b t"]:
        """Training windows by their number: `length + 1` symbols each."""

    def windows(self, batch: int, context: int = 1, limit: int | None = None) -> Iterator[Window]:
        """Every symbol once, in windows, with at least `context` symbols before each; `limit` ends after so many."""

    def context(self, context: int = 1) -> str:
        """What each symbol is predicted from, in words."""


@dataclass(frozen=True)
class Pixels:
    """Images `n t` as symbols, each a sequence of its own."""

    symbols: UInt8[Tensor, "n t"]
    start: int

    def __len__(self) -> int:
        return len(self.symbols)

    def to(self, device: torch.device | str) -> "Pixels":
        """The same on a device."""
        return replace(self, symbols=self.symbols.to(device))

    def drawn(self, index: Int[Tensor, "b"]) -> Int[Tensor, "b t"]:
        """Images by their number, behind the start."""
        images = self.symbols[index.to(self.symbols.device)].long()
        return torch.cat([torch.full_like(images[:, :1], self.start), images], 1)

    def windows(self, batch: int, context: int = 1, limit: int | None = None) -> Iterator[Window]:
        """Every image, or the first `limit`; each symbol has all before it in its image."""
        count = len(self) if limit is None else min(limit, len(self))
        for first in range(0, count, batch):
            yield Window(self.drawn(torch.arange(first, min(first + batch, count))), 0)

    def context(self, context: int = 1) -> str:
        """What each symbol is predicted from, in words."""
        return "each sub-pixel is predicted from all before it in its image"


@dataclass(frozen=True)
class Stream:
    """One long text of bytes, cut into windows of `length` symbols; the one before a window is its first input."""

    symbols: UInt8[Tensor, "n"]
    length: int
    start: int

    def __post_init__(self) -> None:
        """Check that there is a window."""
        if len(self.symbols) < self.length:
            raise ValueError(
                f"a split of the text has {len(self.symbols):,} symbols, and length is {self.length}; give more text, "
                "or a model with a smaller model.length"
            )

    def __len__(self) -> int:
        return len(self.symbols) // self.length

    def to(self, device: torch.device | str) -> "Stream":
        """The same on a device."""
        return replace(self, symbols=self.symbols.to(device))

    def drawn(self, index: Int[Tensor, "b"]) -> Int[Tensor, "b t"]:
        """Windows that begin up to a window's length behind the places of these numbers, drawn anew each time."""
        begin = index.to(self.symbols.device) * self.length
        moved = begin + torch.randint(self.length, begin.shape, device=begin.device)
        return self._at(moved.clamp(max=len(self.symbols) - self.length))

    def windows(self, batch: int, context: int = 1, limit: int | None = None) -> Iterator[Window]:
        """The whole text, or its first `limit` windows, each `length - context + 1` symbols on.

        Raises ValueError unless `context` is from 1 to the length.
        """
        if not 1 <= context <= self.length:
            raise ValueError(f"context must be from 1 to the length {self.length}, got {context}")
        step, total = self.length - context + 1, len(self.symbols)
        yield Window(self._at(torch.zeros(1, dtype=torch.long)), 0)
        begins = torch.arange(step, max(step, total - self.length + 1), step)
        begins = begins if limit is None else begins[: max(0, limit - 1)]
        for part in begins.split(batch):
            yield Window(self._at(part), context - 1)
        done = int(begins[-1]) + self.length if len(begins) else self.length
        if limit is None and done < total:  # the last window ends with the text and counts what is left
            last = total - self.length
            yield Window(self._at(torch.tensor([last])), done - last)

    def context(self, context: int = 1) -> str:
        """What each symbol is predicted from, in words."""
        return (
            f"each symbol is predicted from the {context} to {self.length} before it (the text's first from all there "
            "are)"
        )

    def _at(self, begin: Int[Tensor, "b"]) -> Int[Tensor, "b t"]:
        """Windows from these places on, with the symbol before each."""
        begin = begin.to(self.symbols.device).unsqueeze(1)
        place = begin + torch.arange(-1, self.length, device=begin.device)
        found = self.symbols[place.clamp(min=0)].long()
        return found.masked_fill(place < 0, self.start)


@dataclass(frozen=True)
class SequenceSource:
    """Sequences by name with their splits."""

    name: str
    vocab_size: int
    length: int
    """Symbols of a sequence, or of a window of text."""
    grid: tuple[int, ...]
    """Rows, columns and channels of an image; empty for text."""
    unit: str
    """What a symbol is called: dim (sub-pixel) or character (byte)."""
    train: Pixels | Stream
    val: Pixels | Stream
    test: Pixels | Stream
    split: str
    """How the splits were made, in words."""

    def __repr__(self) -> str:
        """A line on it, in place of its symbols."""
        counts = (f"{part.symbols.numel():,}" for part in (self.train, self.val, self.test))
        return f"{self.name}: {' / '.join(counts)} training, validation and test symbols, sequences of {self.length}"

    def record(self) -> dict[str, Any]:
        """What a checkpoint keeps of its data."""
        return {"name": self.name, "vocab_size": self.vocab_size, "length": self.length, "grid": list(self.grid),
                "unit": self.unit}  # fmt: skip

    def joined(self) -> "SequenceSource":
        """The same with its validation symbols in the training split too."""
        whole = torch.cat([self.train.symbols, self.val.symbols])
        return replace(self, train=replace(self.train, symbols=whole), split=f"{self.split}, which are trained on")

    def check_fits(self, record: Mapping[str, Any]) -> None:
        """ValueError unless a decoder trained on the data of such a record can be measured on this."""
        for key in ("vocab_size", "length"):
            if record.get(key, getattr(self, key)) != getattr(self, key):
                raise ValueError(
                    f"data {self.name!r} has {key} {getattr(self, key)}, the model's data {record[key]}; choose --data "
                    "that fits"
                )
