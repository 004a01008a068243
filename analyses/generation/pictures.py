"""Symbols as people read them: images of sub-pixels, text of bytes."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

CUT = (235, 64, 52)
"""Colour of what is not given."""
GAP = 1
"""Pixels between images."""


def images(symbols: Int[Tensor, "n t"], grid: Sequence[int]) -> UInt8[np.ndarray, "n y x c"]:
    """Images of sequences, grey ones in three channels."""
    found = symbols.reshape(-1, *grid).to(torch.uint8).cpu().numpy()
    return np.repeat(found, 3, axis=-1) if grid[-1] == 1 else found


def cut(shown: UInt8[np.ndarray, "n y x c"], given: int, grid: Sequence[int]) -> UInt8[np.ndarray, "n y x c"]:
    """Images with everything but their first `given` symbols in one colour; a pixel that is begun is not given."""
    pixels = shown.reshape(len(shown), -1, 3).copy()
    pixels[:, given // grid[-1] :] = CUT
    return pixels.reshape(shown.shape)


def sheet(shown: UInt8[np.ndarray, "n y x c"], columns: int) -> UInt8[np.ndarray, "y x c"]:
    """Images row by row on a white sheet."""
    n, height, width, _ = shown.shape
    rows = math.ceil(n / columns)
    out = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), 255, np.uint8)
    for number, image in enumerate(shown):
        y, x = (number // columns) * (height + GAP), (number % columns) * (width + GAP)
        out[y : y + height, x : x + width] = image
    return out


def as_text(symbols: Int[Tensor, "t"]) -> str:
    """Bytes as UTF-8; what is none, or would command a terminal, is shown by the replacement character."""
    text = bytes(symbols.tolist()).decode("utf-8", errors="replace")
    return "".join(each if each.isprintable() or each == "\n" else "\N{REPLACEMENT CHARACTER}" for each in text)


def as_symbols(text: str) -> Int[Tensor, "t"]:
    """Text as bytes of UTF-8."""
    return torch.tensor(list(text.encode("utf-8")), dtype=torch.long)
