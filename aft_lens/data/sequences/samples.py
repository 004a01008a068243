"""A few test sequences kept beside a decoder, so that it can be looked at where its data is not."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from aft_lens.data.sequences.source import Pixels, SequenceSource, Stream
from aft_lens.errors import InputError
from aft_lens.files import write_whole
from aft_lens.weights import read_tensors

FILE = "sequences.safetensors"
"""Of a checkpoint folder."""
KEPT = 32
"""Images, or windows of text."""


def save_sequences(data: SequenceSource, checkpoint: Path) -> Path:
    """Write the first test images, or the beginning of the test text, beside a checkpoint; return the path."""
    test = data.test.symbols
    kept = test[:KEPT] if data.grid else test[: KEPT * data.length]
    return write_whole(checkpoint / FILE, save({"test": kept.contiguous()}))


def load_kept_sequences(record: Mapping[str, Any], checkpoint: Path) -> SequenceSource:
    """A decoder's data (`record`) with the kept sequences as every split.

    Raises FileNotFoundError if it has none, and InputError where they are not of that data.
    """
    if not (checkpoint / FILE).is_file():
        raise FileNotFoundError(f"{checkpoint} keeps no sequences; get the data {record['name']!r}")
    length, start = record["length"], record["vocab_size"]
    kept = read_tensors(checkpoint / FILE).get("test", torch.empty(0))
    sides = (-1, length) if record["grid"] else (-1,)  # images by image, text in one
    fits = kept.dtype == torch.uint8 and kept.ndim == len(sides) and kept.shape[1:] == torch.Size(sides[1:])
    if not fits or not kept.numel() or int(kept.max()) >= start:
        raise InputError(
            f"{checkpoint / FILE} does not hold sequences of {length} symbols from 0 to {start - 1}; copy it again"
        )
    split = Pixels(kept, start) if record["grid"] else Stream(kept, length, start)
    return SequenceSource(
        record["name"], start, length, tuple(record["grid"]), record["unit"], split, split, split,
        "test sequences kept beside the checkpoint, as every split",
    )  # fmt: skip
