"""A user's own images without classes: enough to average attention over."""

from collections import Counter
from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils.data import Dataset

from aft_lens.data.build import Part, from_files
from aft_lens.data.dataset import DATASETS, DataSet
from aft_lens.data.folder_names import why_left_out
from aft_lens.data.image import EXTENSIONS, read_image
from aft_lens.data.sets.folder import note_left_out
from aft_lens.data.source import UNCOUNTED, DataSource


class PlainFolder(Dataset[tuple[Image.Image, int]]):
    """The image files below a folder at any depth, in the order of their paths; none has a class that counts."""

    def __init__(self, path: Path) -> None:
        inside = {file: why_left_out(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}
        self.files = sorted(file for file, why in inside.items() if not why)
        self.left_out = Counter(why for why in inside.values() if why)
        self.targets = [UNCOUNTED] * len(self.files)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return read_image(self.files[index]), UNCOUNTED


def load(name: str, *, root: Path, img_size: int | None, augment: str) -> DataSource:
    """images:PATH, every image file below PATH as every split, with ImageNet's normalisation and centre crop.

    `root` is not read. Raises ValueError without PATH, and FileNotFoundError where it is no folder or holds no images.
    """
    given = name.partition(":")[2]
    if not given:
        raise ValueError(f"data name {name!r} must be images:PATH with a folder of image files in PATH")
    path = Path(given).expanduser()
    if not path.is_dir():
        raise FileNotFoundError(f"data {name!r}: {path} is no folder; give one with image files in it")
    images: Any = PlainFolder(path)
    if not len(images):
        raise FileNotFoundError(
            f"data {name!r}: {path} holds no image files; give a folder with files that end in {', '.join(EXTENSIONS)}"
        )
    note_left_out(name, images.left_out)
    words = "all images as every split; they have no classes"
    return from_files(name, [], [Part(images)] * 3, img_size=img_size or 224, augment=augment, words=words)


DATASETS.add("images", DataSet(load, argument="PATH", crop=True, labelled=False))
