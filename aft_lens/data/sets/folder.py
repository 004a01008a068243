"""A user's own folder of images, with a folder for each class."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aft_lens.data.build import Part, from_files
from aft_lens.data.dataset import DATASETS, DataSet
from aft_lens.data.folder_names import class_names, is_hidden, why_left_out
from aft_lens.data.image import EXTENSIONS
from aft_lens.data.source import DataSource
from aft_lens.data.split import stratified
from aft_lens.later import later
from aft_lens.progress import note

if TYPE_CHECKING:
    from aft_lens.data import class_folders
else:
    class_folders = later("aft_lens.data.class_folders")

SPLITS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""Folder names, in lower case, that are taken for splits, and the name that each must have."""
FEWEST = 10
"""Images a class needs where a split is made here."""


def load(name: str, *, root: Path, img_size: int | None, augment: str) -> DataSource:
    """folder:PATH, with ImageNet's normalisation and centre crop; `root` is not read."""
    path = name.partition(":")[2]
    if not path:
        raise ValueError(f"data name {name!r} must be folder:PATH with a folder of images for each class in PATH")
    classes, parts, words = read_folder(name, Path(path).expanduser())
    left_out: Counter[str] = sum({id(part.images): part.images.left_out for part in parts}.values(), Counter())
    left_out += _beside(Path(path).expanduser(), classes)
    note_left_out(name, left_out)
    return from_files(name, classes, parts, img_size=img_size or 224, augment=augment, words=words)


def read_folder(name: str, path: Path) -> tuple[list[str], list[Part], str]:
    """Classes, the three splits and a line on where they come from, for a folder with a folder for each class.

    A folder with train/ and val/ or test/ is split already, and so is one with train/ alone: without val/ a tenth of
    train/ is held out, without test/ val serves as test. Anything else is split here, 70 / 10 / 20 %. Raises
    FileNotFoundError and ValueError, with the next step, on folders that cannot be read so.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"data {name!r}: {path} is no folder; give one with a folder of images for each class")
    folders = class_names(path)
    splits = {folder for folder in folders if folder.lower() in SPLITS}
    kinds = {SPLITS[folder.lower()] for folder in splits}
    if splits and (len(splits) == len(folders) or kinds > {"train"}):
        if "train" not in splits or splits != kinds:
            raise ValueError(
                f"data {name!r}: {path} holds {', '.join(sorted(splits))}; name the splits train, val and test, with a "
                "folder of images for each class in each"
            )
        return _split_already(name, path, splits)
    whole = _images(name, path)
    parts = _three(name, whole)
    return whole.classes, parts, "a fixed stratified split made here: 70 % train, 10 % val, 20 % test"


def note_left_out(name: str, why: Mapping[str, int]) -> None:
    """Say how many files or folders of a data set were left out, by why, and what to do; nothing without any."""
    if why:
        counts = ", ".join(f"{count} {words}" for words, count in sorted(why.items()))
        note(f"data {name!r}: left out {counts}; image files end in {', '.join(EXTENSIONS)}, convert others")


def _beside(path: Path, classes: Sequence[str]) -> Counter[str]:
    """What lies in a data set's folder beside its classes or splits, by why it is left out."""
    read = {*classes, *(name for name in class_names(path) if name.lower() in SPLITS)}
    found: Counter[str] = Counter()
    for entry in path.iterdir():
        if not entry.is_dir():
            found[why_left_out(Path(entry.name)) or "outside the classes' folders"] += 1
        elif is_hidden(entry.name):
            found["hidden"] += 1
        elif entry.name not in read:
            found[f"folder beside the splits ({entry.name})"] += 1
    return found


def _split_already(name: str, path: Path, found: set[str]) -> tuple[list[str], list[Part], str]:
    """The splits of a folder that has train/ and perhaps val/ and test/."""
    sets = {split: _images(name, path / split) for split in ("train", "val", "test") if split in found}
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


def _images(name: str, path: Path) -> "class_folders.ClassFolders":
    try:
        return class_folders.ClassFolders(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"data {name!r}: {error}; give a folder of images for each class") from error


def _three(name: str, whole: "class_folders.ClassFolders") -> list[Part]:
    """Train, validation and test out of one set."""
    targets = _targets(name, whole)
    rest, test = stratified(targets, 0.2)
    inner, held = stratified(targets[rest], 0.125)
    chosen: Sequence[list[int]] = ([rest[i] for i in inner], [rest[i] for i in held], test)
    return [Part(whole, index) for index in chosen]


def _targets(name: str, images: "class_folders.ClassFolders") -> np.ndarray:
    """Labels of a set that is to be split; ValueError where a class has too few images."""
    targets = np.array(images.targets)
    if np.bincount(targets).min() < FEWEST:
        raise ValueError(
            f"data {name!r}: each class needs at least {FEWEST} images to split; add some, or make train/ and val/"
        )
    return targets


DATASETS.add("folder", DataSet(load, argument="PATH", crop=True))
