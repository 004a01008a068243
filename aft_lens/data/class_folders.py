"""Image files in a folder for each class, by torchvision."""

from collections import Counter
from pathlib import Path

from torchvision import datasets

from aft_lens.data.folder_names import class_names, why_left_out
from aft_lens.data.image import read_image


class ClassFolders(datasets.DatasetFolder):
    """The image files of a folder with a folder for each class; what tools leave behind (hidden names) is left out."""

    def __init__(self, path: Path) -> None:
        self.left_out: Counter[str] = Counter()
        """Files that are not read, by why."""

        def is_image(file: str) -> bool:
            why = why_left_out(Path(file).relative_to(path))
            self.left_out.update([why] if why else [])
            return not why

        super().__init__(path, read_image, is_valid_file=is_image)

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        """Classes in alphabetical order, and their numbers."""
        classes = class_names(Path(directory))
        if not classes:
            raise FileNotFoundError(f"{directory} holds no folders")
        return classes, {name: number for number, name in enumerate(classes)}
