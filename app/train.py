"""`aft-lens train`: a recipe, whose fields are options, into a checkpoint."""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from aft_lens import training
from aft_lens.checkpoint import read_metrics
from aft_lens.data import DataSource
from aft_lens.data.sequences import SequenceSource
from aft_lens.files import recovered
from aft_lens.models import Model, ModelConfig, build_model
from aft_lens.training import (
    AnyRecipe,
    DecoderRecipe,
    add_recipe,
    fitted,
    fitted_decoder,
    list_recipes,
    parse_recipe,
    recipe_of,
    recipe_path,
    start_decoder,
    start_model,
)
from aft_lens.training.on_device import chosen_precision
from analyses.command import add_yes_or_no
from analyses.parser import Parser

EXAMPLES = """aft-lens train --recipe digits-single --seed 1
       aft-lens train --recipe folder-conv --data.name folder:PATH --trainer.epochs 20 [OPTIONS]"""
"""In place of a list of all fields."""


START = "model whose weights training starts from: its folder, or the name of one that ships or was trained"


def train_parser(words: Sequence[str] = ()) -> Parser:
    """The parser of `aft-lens train`, whose options are the fields of the recipe that the words are about."""
    about = f"Train a recipe; its fields are options. Recipes: {', '.join(list_recipes())}, or a YAML file."
    parser = Parser(prog="aft-lens train", description=about, usage=EXAMPLES)
    parser.add_argument("--name", type=str | None, default=None, help="folder below --out; default: the recipe's name")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="where runs are kept")
    add_yes_or_no(parser, "resume", False, "go on with a broken run")
    parser.add_argument(
        "--start",
        type=Path | None,
        default=None,
        help=START,
    )
    add_recipe(parser, words)
    return parser


def main(arguments: list[str]) -> int:
    """Train; 0 if the run is whole. Raises as `train` does."""
    arguments, default = _recipe_files(arguments)
    parser = train_parser(arguments)
    chosen = parse_recipe(parser, arguments)
    if default is None and chosen.name is None:
        raise ValueError(f"give --recipe with one of: {', '.join(list_recipes())}; or --name for a run of your own")
    recipe = recipe_of(parser, chosen)
    recipe, data = _with_data(recipe, arguments)  # Lightning is imported from here on
    name = chosen.name or (f"{default}-seed{recipe.seed}" if recipe.seed else default)
    if Path(str(name)).name != str(name) or str(name) in (".", ".."):
        raise ValueError(f"name must be that of a folder below --out, got {name!r}; choose the place with --out")
    resume = chosen.resume
    start = _start(chosen.start, recipe) if chosen.start and not resume else None
    origin = str(chosen.start) if start else None
    path = Path(chosen.out) / str(name)
    first = training.first_process()  # of those that train together; it speaks for them
    if first:
        print(summary(recipe, data, path), flush=True)
    trained = len(read_metrics(path)) if resume and recovered(path).exists() else 0
    training.train(recipe, path, resume=resume, start=start, origin=origin, data=data)
    if not first:
        return 0
    *before, last = read_metrics(path)
    if len(before) + 1 == trained:
        print(f"{path} had its {trained} epochs: nothing was left to train; --trainer.epochs asks for more",
              file=sys.stderr)  # fmt: skip
    shown = [f"{key} {last[key]:.4g}" for key in ("val_accuracy", "val_bits", "val_loss") if key in last]
    print(f"wrote {path}: {', '.join(shown)}")
    return 0


def summary(recipe: AnyRecipe, data: DataSource | SequenceSource, path: Path) -> str:
    """What is about to be trained: the model, its data, where and how long."""
    model, where = recipe.model, recipe.trainer
    with torch.random.fork_rng(devices=[]):  # the run's own first weights are drawn later
        weights = sum(parameter.numel() for parameter in build_model(model).parameters())
    bias = model.bias_kind if isinstance(model, ModelConfig) else model.position_bias * bool(model.traits.position_bias)
    kind = f"{model.mixer} ({bias})" if bias else model.mixer
    devices = f"{where.devices} x " if where.devices not in (1, "1") else ""
    accelerator = where.accelerator if where.accelerator != "auto" else "gpu" if torch.cuda.is_available() else "cpu"
    if isinstance(data, SequenceSource):
        shown = repr(data)
    else:
        shown = (
            f"{data.name}: {len(data.train):,} training and {len(data.val):,} validation images of "
            f"{data.in_chans} x {data.img_size} x {data.img_size}, {len(data.classes)} classes"
        )
    return "\n".join(
        [
            f"model   {kind}, {model.depth} layers x {model.num_heads} heads, width {model.embed_dim}, "
            f"{weights:,} weights",
            f"data    {shown}",
            f"device  {devices}{accelerator}, {chosen_precision(recipe)}; {where.epochs} epochs, batches of "
            f"{recipe.data.batch_size}; into {path}",
        ]
    )


def _with_data(recipe: AnyRecipe, words: Sequence[str]) -> tuple[AnyRecipe, DataSource | SequenceSource]:
    """The recipe fitted to its data, and these."""
    if isinstance(recipe, DecoderRecipe):
        sequences = training.recipe_sequences(recipe)
        return fitted_decoder(recipe, sequences, words), sequences
    images = training.recipe_data(recipe)
    return fitted(recipe, images, words), images


def _start(path: Path, recipe: AnyRecipe) -> Model:
    """The model that training starts from."""
    if isinstance(recipe, DecoderRecipe):
        return start_decoder(path, recipe.model)
    return start_model(path, recipe.model, seed=recipe.seed)


def _recipe_files(arguments: list[str]) -> tuple[list[str], str | None]:
    """Arguments with recipe names turned into files, and the name a run gets by default."""
    out, name = list(arguments), None
    for i, word in enumerate(arguments):
        flag, _, value = word.partition("=")
        if flag == "--recipe" and value:
            name = value
            out[i] = f"--recipe={recipe_path(value)}"
        elif word == "--recipe" and i + 1 < len(arguments):
            name = arguments[i + 1]
            out[i + 1] = str(recipe_path(name))
    return out, Path(name).stem if name else None
