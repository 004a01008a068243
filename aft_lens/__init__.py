"""AFT Lens: the Attention Free Transformer, its sparsity, and where vision models look.

The names here are the front door, each imported when it is first used: `import aft_lens` costs nothing, not even
PyTorch. What stands behind a name, and everything else, is in the module that `PLACES` gives. Analyses stand above this
package and are reached by their names alone, so that nothing here depends on them.
"""

from importlib import import_module
from typing import Any

__version__ = "0.2.0"

PLACES = {
    "AFTConv": "aft_lens.layers.mixers.aft_conv:AFTConv",
    "Checkpoint": "aft_lens.checkpoint:Checkpoint",
    "MapLogger": "analyses.watch:MapLogger",
    "ablate": "analyses.ablate:ablate",
    "aft_conv": "aft_lens.ops:aft_conv",
    "as_reader": "aft_lens.extraction:as_reader",
    "attend": "analyses.attend:attend",
    "attention_maps": "analyses.attention:attention_maps",
    "batches": "aft_lens.data:batches",
    "bias_maps": "analyses.bias:position_bias_maps",
    "compact": "analyses.compact:compact",
    "complete": "analyses.generation:completed",
    "create": "aft_lens.models:create_model",
    "create_decoder": "aft_lens.models:create_decoder",
    "edit": "aft_lens.extraction:edit",
    "effect": "analyses.explain.causal:compare",
    "evaluate": "aft_lens.training:evaluate",
    "generate": "aft_lens.models:generate",
    "image_batches": "aft_lens.extraction:image_batches",
    "key_maps": "analyses.keys:key_maps",
    "list_models": "aft_lens.models:list_models",
    "load": "aft_lens.checkpoint:load_checkpoint",
    "load_data": "aft_lens.data:load_data",
    "load_decoder": "aft_lens.checkpoint:load_decoder",
    "load_sequences": "aft_lens.data.sequences:load_sequences",
    "measure_bits": "aft_lens.training:measure_bits",
    "open_vit": "aft_lens.extraction:open_source",
    "outcome": "analyses.explain.causal:outcome",
    "prune": "analyses.pruning:prune_to_indexing",
    "read_decoder_recipe": "aft_lens.training:read_decoder_recipe",
    "read_recipe": "aft_lens.training:read_recipe",
    "scan": "analyses.scan:scan",
    "train": "aft_lens.training:train",
}
"""Each name, and the module and name that it stands for."""
__all__ = [*PLACES, "__version__"]


def __getattr__(name: str) -> Any:
    """The thing behind a name of `PLACES`, kept for the next time."""
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = PLACES[name].partition(":")
    found = globals()[name] = getattr(import_module(module), attribute)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *PLACES})
