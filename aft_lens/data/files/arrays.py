"""A batch's draws as arrays of numbers, which workers make and kernels read."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aft_lens.data.augment.draw import Draw
from aft_lens.data.augment.randaugment import LAYERS, Change
from aft_lens.data.augment.view import Size, View

VIEW, NUMBERS = 16, 6
"""Numbers of a view and of an operation."""
TABLE, COLOUR, SHARPNESS, MATRIX = range(1, 5)
"""What is done with an image; as in `kernels`, where 0 is a copy."""
FROM_IMAGE = {"autocontrast": 1, "equalize": 2, "contrast": 3}
"""Operations whose table of values depends on the image; as in `kernels`."""
ORDER = {  # of an upright picture's axes in the stored one: whether turned, y backwards, x backwards
    1: (False, False, False), 2: (False, False, True), 3: (False, True, True), 4: (False, True, False),
    5: (True, False, False), 6: (True, True, False), 7: (True, True, True), 8: (True, False, True),
}  # fmt: skip
"""EXIF's orientations: (turned, stored rows backwards, stored columns backwards)."""


@dataclass(frozen=True)
class DrawArrays:
    """What is random in a batch."""

    views: np.ndarray
    """`b VIEW` int32."""
    boxes: np.ndarray
    """`b 4` int32: what noise takes the place of; no rows: nothing."""
    seeds: np.ndarray
    """`b` int64, of the noise, 32 bits."""
    kinds: np.ndarray
    """`layer b` int32: what each of RandAugment's operations does; no layer without any."""
    numbers: np.ndarray
    """`layer b NUMBERS` float32: factor, or matrix."""
    tables: np.ndarray
    """`layer b 3 256` uint8."""
    members: list[np.ndarray]
    """By layer: `n` int32, the images whose table is made from themselves."""
    statistics: list[np.ndarray]
    """By layer: `n` int32, by which operation (`FROM_IMAGE`)."""


@dataclass(frozen=True)
class Stored:
    """How a picture lies in memory: pixel by pixel, row by row."""

    size: Size
    """Rows and columns."""
    orientation: int = 1
    """EXIF's."""


def stack(draws: Sequence[Draw], stored: Sequence[Stored]) -> DrawArrays:
    """The arrays of a batch of pictures."""
    count = len(draws)
    layers = LAYERS if any(draw.changes for draw in draws) else 0
    kinds = np.zeros((layers, count), np.int32)
    numbers = np.zeros((layers, count, NUMBERS), np.float32)
    tables = np.zeros((layers, count, 3, 256), np.uint8)
    boxes, seeds = np.zeros((count, 4), np.int32), np.zeros(count, np.int64)
    found: list[list[tuple[int, int]]] = [[] for _ in range(layers)]
    for i, draw in enumerate(draws):
        if draw.erased is not None:
            boxes[i], seeds[i] = draw.erased.box, draw.erased.seed
        for layer, done in enumerate(draw.changes):
            if done is not None:
                kinds[layer, i] = _fill(done, numbers[layer, i], tables[layer, i])
                if done.name in FROM_IMAGE:
                    found[layer].append((i, FROM_IMAGE[done.name]))
    views = np.array([view_numbers(draw.view, kept) for draw, kept in zip(draws, stored, strict=True)], np.int32)
    pairs = [np.array(each, np.int32).reshape(-1, 2) for each in found]
    members, statistics = ([np.ascontiguousarray(pair[:, i]) for pair in pairs] for i in range(2))
    return DrawArrays(views, boxes, seeds, kinds, numbers, tables, members, statistics)


def upright(size: Size, orientation: int) -> Size:
    """The size of a stored picture once it is turned upright."""
    return (size[1], size[0]) if ORDER[orientation][0] else size


def view_numbers(view: View, stored: Stored) -> tuple[int, ...]:
    """box 4, resized 2, start 2, move 2, flip, then where pixel (0, 0) is stored, a step down and right."""
    rows, columns = stored.size
    turned, rows_back, columns_back = ORDER[stored.orientation]
    down, right = (-columns if rows_back else columns), (-1 if columns_back else 1)
    origin = (columns * (rows - 1) if rows_back else 0) + (columns - 1 if columns_back else 0)
    steps = (right, down) if turned else (down, right)
    return (
        *view.box, *view.resized, *view.start, *view.move, int(view.flip),
        3 * origin, *(3 * step for step in steps), 0, 0,
    )  # fmt: skip


def _fill(done: Change, numbers: np.ndarray, tables: np.ndarray) -> int:
    """Write an operation's numbers and table; return what is done."""
    numbers[:] = done.matrix if done.matrix is not None else done.factor
    if done.table is not None:
        tables[:] = done.table
    if done.matrix is not None:
        return MATRIX
    return {"colour": COLOUR, "sharpness": SHARPNESS}.get(done.name, TABLE)
