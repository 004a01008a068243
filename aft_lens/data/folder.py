"""A user's own folder of images, and reading one of its files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from torchvision import datasets

from aft_lens.data.split import stratified

SPLITS = ("train", "val", "test")
FEWEST = 10
"""Images a class needs where a split is made here."""


@dataclass(frozen=True)
class Part:
    """The images of one split: a data set, or some of it."""

    images: Any
    index: list[int] | None = None


def read_folder(name: str, path: Path) -> tuple[list[str], list[Part], str]:
    """Classes, the three splits and a line on where they come from, for a folder with a folder for each class.

    A folder with train/ and val/ or test/ is split already, and so is one with train/ alone: without val/ a tenth of
    train/ is held out, without test/ val serves as test. Anything else is split here, 70 / 10 / 20 %. Raises
    FileNotFoundError and ValueError, with the next step, on folders that cannot be read so.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"data {name!r}: {path} is no folder; give one with a folder of images for each class")
    found = {entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")}
    splits = found & {*SPLITS, "valid", "validation"}
    if splits and (splits == found or splits > {"train"}):
        if "train" not in splits or not splits <= set(SPLITS):
            raise ValueError(
                f"data {name!r}: {path} holds {', '.join(sorted(splits))}; name the splits train, val and test, with a "
                "folder of images for each class in each"
            )
        return _split_already(name, path, splits)
    whole = _images(name, path)
    parts = _three(name, whole)
    return whole.classes, parts, "a fixed stratified split made here: 70 % train, 10 % val, 20 % test"


def read_image(file: str) -> Image.Image:
    """An image file in RGB; 16-bit grey is scaled to 8 bits. Raises ValueError on one that cannot be read."""
    try:
        with Image.open(file) as image:
            if image.mode.startswith("I;16"):
                return Image.fromarray(np.uint8(np.asarray(image) >> 8)).convert("RGB")
            if image.mode in ("I", "F"):
                raise ValueError(f"image {file} has 32-bit values; save it with 8 or 16 bits")
            return image.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"image {file} cannot be read ({error}); remove or replace it") from error


def _split_already(name: str, path: Path, found: set[str]) -> tuple[list[str], list[Part], str]:
    """The splits of a folder that has train/ and perhaps val/ and test/."""
    sets = {split: _images(name, path / split) for split in SPLITS if split in found}
    train = sets["train"]
    for split, images in sets.items():
        if images.classes != train.classes:
            raise ValueError(f"data {name!r}: {path / split} has other classes than {train.root}; make them agree")
    if found == {"train"}:
        return train.classes, _three(name, train), "a fixed stratified split of train: 70 % train, 10 % val, 20 % test"
    if "val" not in sets:
        rest, held = stratified(_targets(name, train), 0.1)
        parts = [Part(train, rest), Part(train, held), Part(sets["test"])]
        return train.classes, parts, "the folder's own train and test; a fixed stratified tenth of train as val"
    test = sets.get("test", sets["val"])
    words = "the folder's own train and val" + (" and test" if "test" in sets else "; val serves as test")
    return train.classes, [Part(train), Part(sets["val"]), Part(test)], words


def _images(name: str, path: Path) -> datasets.ImageFolder:
    try:
        return datasets.ImageFolder(path, loader=read_image)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"data {name!r}: {error}; give a folder of images for each class") from error


def _three(name: str, whole: datasets.ImageFolder) -> list[Part]:
    """Train, validation and test out of one set."""
    targets = _targets(name, whole)
    rest, test = stratified(targets, 0.2)
    inner, held = stratified(targets[rest], 0.125)
    chosen: Sequence[list[int]] = ([rest[i] for i in inner], [rest[i] for i in held], test)
    return [Part(whole, index) for index in chosen]


def _targets(name: str, images: datasets.ImageFolder) -> np.ndarray:
    """Labels of a set that is to be split; ValueError where a class has too few images."""
    targets = np.array(images.targets)
    if np.bincount(targets).min() < FEWEST:
        raise ValueError(
            f"data {name!r}: each class needs at least {FEWEST} images to split; add some, or make train/ and val/"
        )
    return targets
