"""scikit-learn's digits: 1,797 grey images of 8 x 8 pixels."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from aft_lens.data.build import from_tensors
from aft_lens.data.dataset import DATASETS, DataSet
from aft_lens.data.source import DataSource
from aft_lens.data.split import stratified
from aft_lens.later import later

if TYPE_CHECKING:
    from sklearn import datasets
else:
    datasets = later("sklearn.datasets")


def load(name: str, *, root: Path, img_size: int | None, augment: str) -> DataSource:
    """70 / 10 / 20 % for training, validation and test; comes with scikit-learn, so `root` is not read."""
    bunch = datasets.load_digits()
    images = torch.from_numpy((bunch.images * (255 / 16)).round().astype(np.uint8)).unsqueeze(1)
    labels = torch.from_numpy(bunch.target)
    rest, test = stratified(bunch.target, 0.2)
    inner, held = stratified(bunch.target[rest], 0.125)
    parts = {"train": [rest[i] for i in inner], "val": [rest[i] for i in held], "test": test}
    return from_tensors(
        name,
        [str(digit) for digit in range(10)],
        {part: (images[index], labels[index]) for part, index in parts.items()},
        img_size=img_size or 8,
        augment=augment,
        words="fixed stratified split of 1,797 images: 70 % train, 10 % val, 20 % test",
    )


DATASETS.add("digits", DataSet(load))
