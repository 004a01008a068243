"""The front door as type checkers see it: the names of `PLACES`."""

from aft_lens.checkpoint import Checkpoint as Checkpoint
from aft_lens.checkpoint import load_checkpoint as load
from aft_lens.checkpoint import load_decoder as load_decoder
from aft_lens.data import batches as batches
from aft_lens.data import load_data as load_data
from aft_lens.data.sequences import load_sequences as load_sequences
from aft_lens.extraction import as_reader as as_reader
from aft_lens.extraction import edit as edit
from aft_lens.extraction import image_batches as image_batches
from aft_lens.extraction import open_source as open_vit
from aft_lens.layers.mixers.aft_conv import AFTConv as AFTConv
from aft_lens.models import create_decoder as create_decoder
from aft_lens.models import create_model as create
from aft_lens.models import generate as generate
from aft_lens.models import list_models as list_models
from aft_lens.ops import aft_conv as aft_conv
from aft_lens.training import evaluate as evaluate
from aft_lens.training import measure_bits as measure_bits
from aft_lens.training import read_decoder_recipe as read_decoder_recipe
from aft_lens.training import read_recipe as read_recipe
from aft_lens.training import train as train
from analyses.ablate import ablate as ablate
from analyses.attend import attend as attend
from analyses.attention import attention_maps as attention_maps
from analyses.bias import position_bias_maps as bias_maps
from analyses.compact import compact as compact
from analyses.explain.causal import compare as effect
from analyses.explain.causal import outcome as outcome
from analyses.generation import completed as complete
from analyses.keys import key_maps as key_maps
from analyses.pruning import prune_to_indexing as prune
from analyses.scan import scan as scan
from analyses.watch import MapLogger as MapLogger

PLACES: dict[str, str]
__version__: str
__all__ = [
    "AFTConv",
    "Checkpoint",
    "MapLogger",
    "__version__",
    "ablate",
    "aft_conv",
    "as_reader",
    "attend",
    "attention_maps",
    "batches",
    "bias_maps",
    "compact",
    "complete",
    "create",
    "create_decoder",
    "edit",
    "effect",
    "evaluate",
    "generate",
    "image_batches",
    "key_maps",
    "list_models",
    "load",
    "load_data",
    "load_decoder",
    "load_sequences",
    "measure_bits",
    "open_vit",
    "outcome",
    "prune",
    "read_decoder_recipe",
    "read_recipe",
    "scan",
    "train",
]
