"""Sequences of symbols: images as their sub-pixels in raster order, and text as its bytes."""

from aft_lens.data.sequences.batches import SEQUENCE_AUGMENTATIONS, SequenceBatches
from aft_lens.data.sequences.corpora import CORPORA, Corpus
from aft_lens.data.sequences.load import load_sequences
from aft_lens.data.sequences.samples import load_kept_sequences, save_sequences
from aft_lens.data.sequences.source import Pixels, SequenceSource, Stream, Window

__all__ = [
    "CORPORA",
    "SEQUENCE_AUGMENTATIONS",
    "Corpus",
    "Pixels",
    "SequenceBatches",
    "SequenceSource",
    "Stream",
    "Window",
    "load_kept_sequences",
    "load_sequences",
    "save_sequences",
]
