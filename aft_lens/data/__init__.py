"""Data sets by name, as normalised tensors with fixed splits."""

from aft_lens.data.folder import read_image
from aft_lens.data.load import DATASETS, load_data
from aft_lens.data.resident import ResidentBatches
from aft_lens.data.samples import load_samples, save_samples
from aft_lens.data.source import UNCOUNTED, DataSource, EqualShares, RepeatedAugmentation, epoch_seed, share_size
from aft_lens.data.transforms import AUGMENTATIONS, batch_transform, eval_transform

__all__ = [
    "AUGMENTATIONS",
    "DATASETS",
    "UNCOUNTED",
    "DataSource",
    "EqualShares",
    "RepeatedAugmentation",
    "ResidentBatches",
    "batch_transform",
    "epoch_seed",
    "eval_transform",
    "load_data",
    "load_samples",
    "read_image",
    "save_samples",
    "share_size",
]
