"""Tensors in safetensors files: what a file holds is known before any of it is read."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from aft_lens.errors import InputError

MOST_HEADER = 2**24
"""Bytes of a file's list of tensors; a large model's has some 100 kB."""
DTYPES = {
    torch.float32: "F32", torch.float64: "F64", torch.float16: "F16", torch.bfloat16: "BF16", torch.bool: "BOOL",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8",
}  # fmt: skip
"""Types by their name in a file."""


@dataclass(frozen=True)
class Entry:
    """What a file says of one tensor."""

    shape: tuple[int, ...]
    dtype: str
    """As safetensors names it, e.g. F32."""

    @classmethod
    def of(cls, tensor: Tensor) -> "Entry":
        """What a file would say of a tensor."""
        return cls(tuple(tensor.shape), DTYPES.get(tensor.dtype, str(tensor.dtype)))


def read_header(path: Path) -> dict[str, Entry]:
    """Every tensor's shape and type by name, no tensor read; InputError on a damaged file."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MOST_HEADER:
        raise InputError(f"{path} is damaged (a list of tensors of {length:,} bytes); train or copy it again")
    try:
        with safe_open(path, "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            return {name: Entry(tuple(one.get_shape()), str(one.get_dtype())) for name, one in slices.items()}
    except SafetensorError as error:
        raise InputError(f"{path} is damaged ({error}); train or copy it again") from error


def read_tensors(path: Path, *, digest: str | None = None) -> dict[str, Tensor]:
    """Every tensor by name, layer 2 before layer 10; InputError on a damaged file, or one that `digest` is not of."""
    content = path.read_bytes()  # not mapped into memory: the file may be replaced while the tensors live
    if digest is not None and hashlib.sha256(content).hexdigest() != digest:
        raise InputError(f"{path} is not the file that was saved: it was damaged or replaced; train or copy it again")
    try:
        tensors = load(content)
    except (SafetensorError, KeyError) as error:  # KeyError: a type that PyTorch has not
        raise InputError(f"{path} is damaged ({error}); train or copy it again") from error
    return {name: tensors[name] for name in sorted(tensors, key=_in_order)}


def _in_order(name: str) -> list[tuple[int, str]]:
    """A name's parts, whole numbers by their size."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in name.split(".")]


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> str:
    """Write tensors and return the file's digest."""
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)  # by Python: a full disk is an OSError, and the file's mode is the user's own
    return hashlib.sha256(content).hexdigest()


def differences(expected: Mapping[str, Entry], found: Mapping[str, Entry]) -> list[str]:
    """One line for every name that is missing from `found`, unexpected in it, or of another shape or type."""
    lines = [f"missing: {name} {one.shape}" for name, one in expected.items() if name not in found]
    lines += [f"unexpected: {name} {one.shape}" for name, one in found.items() if name not in expected]
    for name, one in expected.items():
        other = found.get(name, one)
        if other.shape != one.shape:
            lines.append(f"shape of {name}: expected {one.shape}, found {other.shape}")
        elif other.dtype != one.dtype:
            lines.append(f"type of {name}: expected {one.dtype}, found {other.dtype}")
    return lines


def numbers(entries: Mapping[str, Entry]) -> int:
    """How many numbers there are in all tensors."""
    return sum(prod(entry.shape) for entry in entries.values())
