"""Data sets by name, as normalised tensors with fixed splits, and image files as a model takes them."""

from aft_lens.data.batches import batches
from aft_lens.data.build import Part, from_files, from_tensors
from aft_lens.data.dataset import DATASETS, DataSet
from aft_lens.data.download import offline
from aft_lens.data.files.batches import (
    FileBatches,
    batches_of,
    drawn_from_files,
    reading_workers,
    usable_cores,
)
from aft_lens.data.image import ImageError, fit, flatten, how_read, read_image, to_pixels
from aft_lens.data.load import is_cropped, load_data, model_input
from aft_lens.data.resident import ResidentBatches
from aft_lens.data.samples import load_samples, save_samples
from aft_lens.data.source import (
    UNCOUNTED,
    DataSource,
    EpochOrder,
    EqualShares,
    Resumable,
    Seeded,
    epoch_seed,
    representative,
    share_size,
    some,
)
from aft_lens.data.transforms import AUGMENTATIONS, CENTRE, FILES_BY, batch_transform, eval_transform, fit_transform

__all__ = [
    "AUGMENTATIONS",
    "CENTRE",
    "DATASETS",
    "FILES_BY",
    "UNCOUNTED",
    "DataSet",
    "DataSource",
    "EpochOrder",
    "EqualShares",
    "FileBatches",
    "ImageError",
    "Part",
    "ResidentBatches",
    "Resumable",
    "Seeded",
    "batch_transform",
    "batches",
    "batches_of",
    "drawn_from_files",
    "epoch_seed",
    "eval_transform",
    "fit",
    "fit_transform",
    "flatten",
    "from_files",
    "from_tensors",
    "how_read",
    "is_cropped",
    "load_data",
    "load_samples",
    "model_input",
    "offline",
    "read_image",
    "reading_workers",
    "representative",
    "save_samples",
    "share_size",
    "some",
    "to_pixels",
    "usable_cores",
]
