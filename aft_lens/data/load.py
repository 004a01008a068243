"""A data set by name, and an image file as a model trained on such data takes it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Float
from PIL import Image
from torch import Tensor

import aft_lens.data.sets  # noqa: F401  (registers what ships)
from aft_lens.data.dataset import DATASETS
from aft_lens.data.image import flatten
from aft_lens.data.source import DataSource
from aft_lens.data.transforms import eval_transform

DEFAULT_ROOT = Path("data")
"""Where downloads go and are looked for."""


def load_data(
    name: str,
    *,
    root: Path | str | None = None,
    img_size: int | None = None,
    augment: str = "none",
    labelled: bool = True,
) -> DataSource:
    """Load a data set by name: one of `DATASETS`, e.g. folder:PATH with a folder of images for each class in PATH.

    `root` is where downloads live (default: `data/`); `img_size` resizes to a square of so many pixels (default:
    the data's own size, 224 for imagenet and folders); `augment` names the training split's augmentation. The
    validation split is held out of the training images by a fixed stratified draw where the data has none.
    With `labelled` False images without classes will do: images:PATH, any folder of image files. Raises ValueError on
    an unknown name and on data without classes where they are needed, and FileNotFoundError, with the next step, on
    missing data.
    """
    word, colon, _ = name.partition(":")
    if word not in DATASETS:
        raise ValueError(f"data name {name!r} is unknown; choose one of: {', '.join(DATASETS)}")
    found = DATASETS[word]
    if colon and not found.argument:
        raise ValueError(f"data name {name!r} must be {word} alone; choose one of: {', '.join(DATASETS)}")
    if labelled and not found.labelled:
        raise ValueError(
            f"data {name!r} has no classes, which are needed here; give folder:PATH with a folder of images for each "
            "class (attention and locality take images without classes)"
        )
    folder = Path(root) if root is not None else DEFAULT_ROOT
    return found.load(name, root=folder, img_size=img_size, augment=augment)


def is_cropped(name: str) -> bool:
    """Whether image files come to models of that data by ImageNet's centre crop; else whole, squeezed to the square.

    Data of a name that is not known here (another machine's, an imported ViT's) was image files.
    """
    word = name.partition(":")[0]
    return word not in DATASETS or DATASETS[word].crop


def model_input(image: Image.Image, record: Mapping[str, Any], *, invert: bool = False) -> Float[Tensor, "c y x"]:
    """A picture (from `read_image`) as a model takes it whose data record a checkpoint keeps.

    The input is that which the same file would give as an image of the model's data; `invert` makes a dark drawing on
    light paper a light one on dark. Raises ValueError where the model takes other than one or three channels.
    """
    crop = is_cropped(record.get("name") or "")
    picture = flatten(image, record["in_chans"], invert=invert)
    return eval_transform(record["img_size"], record["mean"], record["std"], crop=crop)(picture)
