"""Text by name: Enwik8 from its file, and any text or bytes of one's own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from aft_lens.data.folder_names import is_hidden
from aft_lens.data.sequences.source import SequenceSource, Stream
from aft_lens.errors import InputError
from aft_lens.registry import Registry

BYTES = 256
"""Symbols of text: its bytes, whatever their encoding."""
ENWIK8 = 100_000_000
"""Bytes of Enwik8, of which the first 90 % train, 5 % validate and 5 % test (Sec. 5.2)."""
SHARES = (0.9, 0.05)
"""Of a text that train and validate; the rest tests."""
MOST_BYTES = 2**31


class Read(Protocol):
    """How a corpus is read."""

    def __call__(self, name: str, *, root: Path, length: int) -> SequenceSource:
        """The corpus of that whole name in windows of `length` symbols; FileNotFoundError, with the next step, where it
        is not to be had."""


@dataclass(frozen=True)
class Corpus:
    """A text that `load_sequences` finds by the word before the colon of a name."""

    read: Read
    argument: str = ""
    """What may stand behind the word and a colon, as it is shown to users; empty: nothing may."""


CORPORA: Registry[Corpus] = Registry("corpus", "aft_lens.corpora")
"""Texts by their word; other packages add by entry points."""


def in_parts(name: str, symbols: bytes, length: int, ends: tuple[int, int], words: str) -> SequenceSource:
    """A source of bytes that are split at two places: train, val, test."""
    whole = torch.from_numpy(np.frombuffer(symbols, np.uint8).copy())
    train, val, test = (Stream(part, length, BYTES) for part in whole.tensor_split(ends))
    return SequenceSource(name, BYTES, length, (), "character", train, val, test, words)


def enwik8(name: str, *, root: Path, length: int) -> SequenceSource:
    """Enwik8 from the file given behind the colon, or ROOT/enwik8: the first 100,000,000 bytes of a Wikipedia dump."""
    _, _, given = name.partition(":")
    file = Path(given).expanduser() if given else root / "enwik8"
    if not file.is_file():
        raise FileNotFoundError(
            f"Enwik8 is not in {file}; unpack enwik8.zip (Mahoney's Large Text Compression Benchmark) there, or give "
            "its place as enwik8:PATH"
        )
    if file.stat().st_size != ENWIK8:
        raise InputError(f"{file} has {file.stat().st_size:,} bytes, and Enwik8 {ENWIK8:,}; use text:{file} for others")
    ends = (ENWIK8 // 100 * 90, ENWIK8 // 100 * 95)
    return in_parts(name, file.read_bytes(), length, ends, "the first 90, next 5 and last 5 million bytes")


def text(name: str, *, root: Path, length: int) -> SequenceSource:
    """The bytes of a file, or of all files below a folder in the order of their paths."""
    path = Path(name.partition(":")[2]).expanduser()
    if name.partition(":")[2] == "" or not path.exists():
        raise FileNotFoundError(f"data {name!r} must be text:PATH with a file or folder of text that is there")
    files = [path] if path.is_file() else _files(path)
    if (size := sum(file.stat().st_size for file in files)) > MOST_BYTES:
        raise InputError(f"{path} has {size:,} bytes, more than the {MOST_BYTES:,} that are held in memory; give less")
    found = b"".join(file.read_bytes() for file in files)
    train, val = (int(len(found) * share) for share in SHARES)
    words = f"the first {SHARES[0]:.0%}, next {SHARES[1]:.0%} and last {1 - sum(SHARES):.0%} of {len(found):,} bytes"
    return in_parts(name, found, length, (train, train + val), words)


def _files(folder: Path) -> list[Path]:
    """The files below a folder but hidden ones; InputError without any."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    files = [file for file in files if not any(map(is_hidden, file.relative_to(folder).parts))]
    if not files:
        raise InputError(f"{folder} holds no files; give text:PATH with a file or folder of text")
    return files


CORPORA.add("enwik8", Corpus(enwik8, argument="PATH"))
CORPORA.add("text", Corpus(text, argument="PATH"))
