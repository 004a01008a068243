"""`aft-lens train`: a recipe, whose fields are options, into a checkpoint."""

from pathlib import Path

import torch

from aft_lens import training
from aft_lens.checkpoint import read_metrics
from aft_lens.data import DataSource
from aft_lens.models import VisionModel
from aft_lens.training import (
    Recipe,
    add_recipe,
    fitted,
    list_recipes,
    parse_recipe,
    recipe_of,
    recipe_path,
    start_model,
)
from analyses.command import add_yes_or_no
from analyses.parser import Parser

EXAMPLES = """aft-lens train --recipe digits-single --seed 1
       aft-lens train --recipe folder-conv --data.name folder:PATH --trainer.epochs 20 [OPTIONS]"""
"""In place of a list of all fields."""


START = "model whose weights training starts from: its folder, or the name of one that ships or was trained"


def train_parser() -> Parser:
    """The parser of `aft-lens train`, whose options are the fields of `Recipe`."""
    words = f"Train a recipe; its fields are options. Recipes: {', '.join(list_recipes())}, or a YAML file."
    parser = Parser(prog="aft-lens train", description=words, usage=EXAMPLES)
    parser.add_argument("--name", type=str | None, default=None, help="folder below --out; default: the recipe's name")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="where runs are kept")
    add_yes_or_no(parser, "resume", False, "go on with a broken run")
    parser.add_argument(
        "--start",
        type=Path | None,
        default=None,
        help=START,
    )
    add_recipe(parser)
    return parser


def main(arguments: list[str]) -> int:
    """Train; 0 if the run is whole. Raises as `train` does."""
    arguments, default = _recipe_files(arguments)
    parser = train_parser()
    chosen = parse_recipe(parser, arguments)
    if default is None and chosen.name is None:
        raise ValueError(f"give --recipe with one of: {', '.join(list_recipes())}; or --name for a run of your own")
    recipe = recipe_of(parser, chosen)
    data = training.recipe_data(recipe)  # Lightning is imported from here on
    recipe = fitted(recipe, data, arguments)
    name = chosen.name or (f"{default}-seed{recipe.seed}" if recipe.seed else default)
    if Path(str(name)).name != str(name) or str(name) in (".", ".."):
        raise ValueError(f"name must be that of a folder below --out, got {name!r}; choose the place with --out")
    resume = chosen.resume
    start = start_model(chosen.start, recipe.model, seed=recipe.seed) if chosen.start and not resume else None
    origin = str(chosen.start) if start else None
    path = Path(chosen.out) / str(name)
    first = training.first_process()  # of those that train together; it speaks for them
    if first:
        print(summary(recipe, data, path), flush=True)
    training.train(recipe, path, resume=resume, start=start, origin=origin, data=data)
    if not first:
        return 0
    last = read_metrics(path)[-1]
    shown = [f"{key} {last[key]:.4g}" for key in ("val_accuracy", "val_loss") if key in last]
    print(f"wrote {path}: {', '.join(shown)}")
    return 0


def summary(recipe: Recipe, data: DataSource, path: Path) -> str:
    """What is about to be trained: the model, its data, where and how long."""
    model, where = recipe.model, recipe.trainer
    with torch.random.fork_rng(devices=[]):  # the run's own first weights are drawn later
        weights = sum(parameter.numel() for parameter in VisionModel(model).parameters())
    kind = f"{model.mixer} ({model.bias_kind})" if model.bias_kind else model.mixer
    devices = f"{where.devices} x " if where.devices not in (1, "1") else ""
    accelerator = where.accelerator if where.accelerator != "auto" else "gpu" if torch.cuda.is_available() else "cpu"
    return "\n".join(
        [
            f"model   {kind}, {model.depth} layers x {model.num_heads} heads, width {model.embed_dim}, "
            f"{weights:,} weights",
            f"data    {data.name}: {len(data.train):,} training and {len(data.val):,} validation images of "
            f"{data.in_chans} x {data.img_size} x {data.img_size}, {len(data.classes)} classes",
            f"device  {devices}{accelerator}, {where.precision}; {where.epochs} epochs, batches of "
            f"{recipe.data.batch_size}; into {path}",
        ]
    )


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
