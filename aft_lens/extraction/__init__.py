"""Reading tensors out of models."""

from aft_lens.extraction.aft import AFTReader
from aft_lens.extraction.edit import edit
from aft_lens.extraction.hooks import hook_points, run_with_cache, unfused, watch
from aft_lens.extraction.offsets import fold_offsets, targets_per_offset, unfold_offsets
from aft_lens.extraction.own import OwnReader
from aft_lens.extraction.positions import PositionMap, open_positions
from aft_lens.extraction.preprocessing import Preprocessing, drawn_words, image_batches
from aft_lens.extraction.reader import AttentionReader, spread
from aft_lens.extraction.relative import ImageBatches, RelativeSums, relative_attention, stream_relative
from aft_lens.extraction.request import Request
from aft_lens.extraction.resume import can_resume, entering, resumed
from aft_lens.extraction.sources import as_reader, open_source

__all__ = [
    "AFTReader",
    "AttentionReader",
    "ImageBatches",
    "OwnReader",
    "PositionMap",
    "Preprocessing",
    "RelativeSums",
    "Request",
    "as_reader",
    "can_resume",
    "drawn_words",
    "edit",
    "entering",
    "fold_offsets",
    "hook_points",
    "image_batches",
    "open_positions",
    "open_source",
    "relative_attention",
    "resumed",
    "run_with_cache",
    "spread",
    "stream_relative",
    "targets_per_offset",
    "unfold_offsets",
    "unfused",
    "watch",
]
