"""The commands by name, each with its module: what ships, and what other packages add as aft_lens.analyses.

A module answers by a `command` function, or by a `main` that takes the words itself and returns the exit status. An
entry point of that group names a module with a `command` function, whose parameters become the options of
`aft-lens NAME`, and, for a page in the app, a `show(checkpoint: Path) -> Result`.
"""

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

from aft_lens.registry import Registry


@dataclass(frozen=True)
class Shipped:
    """A module that is imported when it is asked for, so that `aft-lens list` needs no Plotly."""

    module: str
    job: str
    """What one is about who needs it; a heading of the list of commands."""
    words: str
    """What it does, for that list."""
    page: bool = False
    """Whether it has a `show`."""


SHIPPED = {
    "train": Shipped("app.train", "train", "train a recipe"),
    "evaluate": Shipped("app.evaluate", "train", "accuracy of classifiers, bits a symbol of decoders"),
    "list": Shipped("app.listing", "browse", "models, data sets, recipes and checkpoints"),
    "sample": Shipped("analyses.generation.sample", "write", "images or text that a decoder draws"),
    "complete": Shipped("analyses.generation.complete", "write", "test images or text, cut off and completed (Fig. 4)"),
    "bias": Shipped("analyses.bias", "browse", "position-bias maps exp(w) - 1 by layer and head"),
    "field": Shipped("analyses.field", "browse", "how far an output token sees, block by block, by gradients"),
    "keys": Shipped("analyses.keys", "browse", "key feature maps of an image beside an attribution"),
    "decoder": Shipped(
        "analyses.decoders", "browse", "a decoder's biases by offset, its weights, knock-outs and pruning"
    ),
    "attribution": Shipped(
        "analyses.attribution", "browse", "whether attributions rest on the weights and beat random pixels"
    ),
    "scan": Shipped("analyses.scan", "browse", "what the heads of a ViT or AFT-conv do, the strongest findings first"),
    "attention": Shipped("analyses.attention", "browse", "relative attention of any ViT; relative positions"),
    "qk": Shipped("analyses.qk", "browse", "how much of the logits of a ViT is place, and how much content"),
    "attend": Shipped(
        "analyses.attend", "browse", "what a patch or the class token of one image reads, by head and as rollout"
    ),
    "locality": Shipped(
        "analyses.locality", "compare", "how local the heads of models are, beside random weights", page=True
    ),
    "match": Shipped("analyses.match", "compare", "pair the heads of two models, and an atlas of them"),
    "latency": Shipped("analyses.latency", "compare", "which of two models is faster, timed in turn"),
    "explain": Shipped(
        "analyses.explain", "compare", "whether position explains the heads of a model, and what edits of them cost"
    ),
    "ablate": Shipped("analyses.ablate", "compare", "how many heads of a ViT offsets, kernels or nothing can replace"),
    "compact": Shipped("analyses.compact", "prune", "a ViT without query and key of the heads that position explains"),
    "knockout": Shipped("analyses.knockout", "prune", "what edits of the position biases cost", page=True),
    "transfer": Shipped("analyses.transfer", "train", "start an AFT-conv from a ViT's weights"),
    "prune": Shipped("analyses.pruning.command", "prune", "prune position biases to indexing"),
    "export": Shipped("analyses.export", "prune", "write a model as torch.export and ONNX files"),
    "bench": Shipped("analyses.bench", "publish", "measure operators and models"),
    "study": Shipped("analyses.study", "publish", "train and test the paper's claims"),
    "autoregression": Shipped(
        "analyses.autoregression", "publish", "Tables 2 to 6 in small: decoders of every mixer, judged"
    ),
    "app": Shipped("app.serve", "browse", "serve the Streamlit app"),
    "demo": Shipped("app.demo", "browse", "train, prune, compare, report and serve"),
}
COMMANDS: Registry[Shipped | ModuleType] = Registry("command", "aft_lens.analyses")
for _name, _shipped in SHIPPED.items():
    COMMANDS.add(_name, _shipped)


def command_job(name: str) -> str:
    """The job that a command is for; "others" where another package adds it."""
    return SHIPPED[name].job if name in SHIPPED else "others"


def command_words() -> dict[str, str]:
    """What each command does, by name; none is imported."""
    added = "of another package; aft-lens {} --help says what it does"
    return {name: SHIPPED[name].words if name in SHIPPED else added.format(name) for name in COMMANDS}


def command_module(name: str) -> Any:
    """The module that answers a command; ValueError says which there are."""
    found = COMMANDS[name]
    return import_module(found.module) if isinstance(found, Shipped) else found


def pages() -> list[str]:
    """Names of the analyses that show themselves in the app; those of other packages are imported to see."""
    return [
        name for name in COMMANDS
        if (SHIPPED[name].page if name in SHIPPED else hasattr(command_module(name), "show"))
    ]  # fmt: skip
