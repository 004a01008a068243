"""The one place that knows data sets by name."""

import gzip
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torchvision import datasets

from aft_lens.data.folder import Part, read_folder
from aft_lens.data.source import DataSource, Images, Transformed
from aft_lens.data.split import SPLIT_SEED, stratified
from aft_lens.data.transforms import eval_transform, train_transform

DATASETS = ("digits", "fashion-mnist", "cifar10", "cifar100", "imagenet", "synthetic:COUNT", "folder:PATH")
DEFAULT_ROOT = Path("data")
"""Where downloads go and are looked for."""
DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts its files."""
SYNTHETIC, DRAWN = 8192, 256
"""Training images of noise if no number is given, and how many of them differ; as many validate and test."""
IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def load_data(
    name: str, *, root: Path | str | None = None, img_size: int | None = None, augment: str = "none"
) -> DataSource:
    """Load a data set by name: one of `DATASETS`, PATH being a folder with a folder of images for each class.

    `synthetic` or `synthetic:COUNT` is noise for measuring speed, 8,192 or COUNT training images.

    `root` is where downloads live (default: `data/`); `img_size` resizes to a square of so many pixels (default:
    the data's own size, 224 for imagenet and folders); `augment` names the training split's augmentation. The
    validation split is held out of the training images by a fixed stratified draw where the data has none.
    Raises ValueError on an unknown name and FileNotFoundError, with the next step, on missing data.
    """
    folder = Path(root) if root is not None else DEFAULT_ROOT
    if name == "digits":
        return _digits(img_size or 8, augment)
    if name == "fashion-mnist":
        return _in_memory(name, _fashion(folder), img_size or 28, augment)
    if name in ("cifar10", "cifar100"):
        return _in_memory(name, _cifar(name, folder), img_size or 32, augment)
    if name == "imagenet":
        return _imagenet(folder, img_size or 224, augment)
    if name.partition(":")[0] == "synthetic":
        return _synthetic(name, img_size or 224, augment)
    if name.startswith("folder:"):
        found = read_folder(name, Path(name.removeprefix("folder:")).expanduser())
        return _file_source(name, *found, img_size or 224, augment)
    raise ValueError(f"data name {name!r} is unknown; choose one of: {', '.join(DATASETS)}")


def _digits(img_size: int, augment: str) -> DataSource:
    """scikit-learn's 1,797 digits, 70 / 10 / 20 % for training, validation and test."""
    bunch = load_digits()
    images = torch.from_numpy((bunch.images * (255 / 16)).round().astype(np.uint8)).unsqueeze(1)
    labels = torch.from_numpy(bunch.target)
    rest, test = stratified(bunch.target, 0.2)
    inner, held = stratified(bunch.target[rest], 0.125)
    parts = {"train": [rest[i] for i in inner], "val": [rest[i] for i in held], "test": test}
    splits = {part: (images[index], labels[index]) for part, index in parts.items()}
    words = "fixed stratified split of 1,797 images: 70 % train, 10 % val, 20 % test"
    return _tensor_source("digits", [str(i) for i in range(10)], splits, img_size, augment, words)


def _synthetic(name: str, img_size: int, augment: str) -> DataSource:
    """Uniform noise with ImageNet's classes, to measure speed with; nothing can be learned from it."""
    _, given, count = name.partition(":")
    count = count if given else str(SYNTHETIC)
    if not count.isdecimal() or int(count) < 1:
        raise ValueError(f"data name {name!r} must be synthetic or synthetic:COUNT with COUNT 1 or more")
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    splits = {}
    for part, size in (("train", int(count)), ("val", DRAWN), ("test", DRAWN)):
        images = torch.randint(0, 256, (DRAWN, 3, img_size, img_size), dtype=torch.uint8, generator=generator)
        index = torch.arange(size) % DRAWN
        splits[part] = images[index], torch.randint(0, 1000, (DRAWN,), generator=generator)[index]
    classes = [str(i) for i in range(1000)]
    return _source(name, classes, splits, *IMAGENET, img_size, augment, "drawn with a fixed seed")


def _tensor_source(
    name: str, classes: list[str], splits: dict[str, tuple[Tensor, Tensor]], img_size: int, augment: str, words: str
) -> DataSource:
    """A source of images in memory, normalised by its training split."""
    pixels = splits["train"][0].float() / 255
    mean = [round(value, 4) for value in pixels.mean((0, 2, 3)).tolist()]
    std = [round(value, 4) for value in pixels.std((0, 2, 3)).tolist()]
    return _source(name, classes, splits, mean, std, img_size, augment, words)


def _source(
    name: str, classes: list[str], splits: dict[str, tuple[Tensor, Tensor]], mean: list[float], std: list[float],
    img_size: int, augment: str, words: str,
) -> DataSource:  # fmt: skip
    """A source of images in memory with a given normalisation."""
    plain = eval_transform(img_size, mean, std)
    return DataSource(
        name, classes, mean, std, len(mean), img_size,
        Images(*splits["train"], train_transform(augment, img_size, mean, std)),
        Images(*splits["val"], plain), Images(*splits["test"], plain), words,
    )  # fmt: skip


Loaded = tuple[list[str], tuple[Tensor, Tensor], tuple[Tensor, Tensor]]


def _in_memory(name: str, loaded: Loaded, img_size: int, augment: str) -> DataSource:
    """A source with the data's own test split and a tenth of its training images held out for validation."""
    classes, (images, labels), test = loaded
    train, val = stratified(labels.numpy(), 0.1)
    splits = {"train": (images[train], labels[train]), "val": (images[val], labels[val]), "test": test}
    words = "the data set's own test split; a fixed stratified tenth of its training images as val"
    return _tensor_source(name, classes, splits, img_size, augment, words)


def _idx(path: Path) -> Tensor:
    """Read a gzipped IDX file of unsigned bytes."""
    raw = gzip.decompress(path.read_bytes())
    _, kind, rank = struct.unpack(">HBB", raw[:4])
    if kind != 8:
        raise ValueError(f"{path} holds IDX type {kind}, expected 8 (unsigned bytes); fetch the file again")
    shape = struct.unpack(f">{rank}I", raw[4 : 4 + 4 * rank])
    return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape).copy())


def _fashion(root: Path) -> Loaded:
    """Fashion-MNIST from Debian's package or a folder of its four files, else by torchvision's download."""
    classes = list(datasets.FashionMNIST.classes)
    for folder in (root / "fashion-mnist", DEBIAN_FASHION):
        if (folder / "train-images-idx3-ubyte.gz").is_file():
            parts = [
                (
                    _idx(folder / f"{part}-images-idx3-ubyte.gz").unsqueeze(1),
                    _idx(folder / f"{part}-labels-idx1-ubyte.gz").long(),
                )
                for part in ("train", "t10k")
            ]
            return classes, parts[0], parts[1]
    hint = f"install Debian's package dataset-fashion-mnist or put its four .gz files into {root / 'fashion-mnist'}"
    train, test = (_download(datasets.FashionMNIST, root, hint, train=part) for part in (True, False))
    return classes, (train.data.unsqueeze(1), train.targets), (test.data.unsqueeze(1), test.targets)


def _cifar(name: str, root: Path) -> Loaded:
    """CIFAR-10 or CIFAR-100 by torchvision."""
    kind = datasets.CIFAR10 if name == "cifar10" else datasets.CIFAR100
    hint = f"connect once to download it, or unpack its Python archive below {root}"
    train, test = (_download(kind, root, hint, train=part) for part in (True, False))
    pair = [(torch.from_numpy(d.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(d.targets)) for d in (train, test)]
    return list(train.classes), pair[0], pair[1]


def _download(kind: Callable[..., Any], root: Path, hint: str, **options: Any) -> Any:
    """Let torchvision find or fetch a data set; FileNotFoundError with the next step if it cannot."""
    try:
        return kind(root, download=True, **options)
    except (URLError, RuntimeError, OSError) as error:
        raise FileNotFoundError(
            f"data set {kind.__name__} is not in {root} and its download failed ({error}); {hint}"
        ) from error


def _imagenet(root: Path, img_size: int, augment: str) -> DataSource:
    """ImageNet-1k by torchvision; its validation split serves as val and test."""
    try:
        train, val = (datasets.ImageNet(str(root / "imagenet"), split=split) for split in ("train", "val"))
    except (RuntimeError, OSError) as error:
        raise FileNotFoundError(
            f"data set imagenet is not in {root / 'imagenet'} ({error}); get ILSVRC2012_devkit_t12.tar.gz and the "
            "train and val archives from image-net.org, and put them there"
        ) from error
    classes = [names[0] for names in train.classes]
    words = "ImageNet's training split; its validation split as val and test"
    return _file_source("imagenet", classes, [Part(train), Part(val), Part(val)], words, img_size, augment)


def _file_source(
    name: str, classes: list[str], parts: Sequence[Part], words: str, img_size: int, augment: str
) -> DataSource:
    """A source of image files with ImageNet's normalisation."""
    mean, std = IMAGENET
    plain = eval_transform(img_size, mean, std, crop=True)
    random = plain if augment == "none" else train_transform(augment, img_size, mean, std)
    train, val, test = parts
    return DataSource(
        name, classes, list(mean), list(std), 3, img_size,
        Transformed(train.images, random, train.index), Transformed(val.images, plain, val.index),
        Transformed(test.images, plain, test.index), words,
    )  # fmt: skip
