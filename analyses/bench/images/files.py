"""JPEG files to measure with, made here: photographs in size and weight, nothing to see in them."""

import io
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from aft_lens.data import usable_cores

ROWS, COLUMNS = 375, 500
"""ImageNet's most frequent size."""
CLASSES = 100
PARTS = 80
"""Pieces of work; they divide `DIFFERENT`, so that each picture is drawn in one of them alone."""
DIFFERENT = 2_000
"""Pictures that differ; each is under several names."""
QUALITY = 90
GRAIN = 7.0
"""Standard deviation of the noise, in levels: with it a file of `QUALITY` weighs about 70 kB."""


def make_files(folder: Path, count: int) -> Path:
    """`count` files as train/ and the first sixteenth of them again as val/, made once; the folder."""
    done = folder.with_name(f"{folder.name}-{count}.done")
    if not done.is_file():
        for split in ("train", "val"):
            for label in range(CLASSES):
                (folder / split / f"{label:03d}").mkdir(parents=True, exist_ok=True)
        parts = [range(count)[i::PARTS] for i in range(PARTS)]
        with ProcessPoolExecutor(usable_cores()) as pool:
            list(pool.map(_make, [folder] * len(parts), parts, [max(CLASSES, count // 16)] * len(parts)))
        done.touch()
    return folder


def photograph(seed: int) -> bytes:
    """A JPEG of coloured patches with grain, drawn by its seed."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((COLUMNS, ROWS), Image.Resampling.BICUBIC), dtype=np.float32)
    grain = rng.standard_normal((ROWS, COLUMNS, 1), dtype=np.float32) * GRAIN
    data = io.BytesIO()
    Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8)).save(data, "JPEG", quality=QUALITY)
    return data.getvalue()


def _make(folder: Path, numbers: Sequence[int], again: int) -> None:
    """Write the files of some numbers; those below `again` into val/ too."""
    kept: dict[int, bytes] = {}
    for number in numbers:
        seed = number % DIFFERENT
        kept[seed] = kept.get(seed) or photograph(seed)
        name = f"{number % CLASSES:03d}/{number:06d}.jpg"
        path = folder / "train" / name
        path.write_bytes(kept[seed])
        if number < again:
            (folder / "val" / name).hardlink_to(path)
