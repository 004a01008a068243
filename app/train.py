"""`aft-lens train`: a recipe, whose fields are options, into a checkpoint."""

import sys
from pathlib import Path

from jsonargparse import ArgumentParser
from lightning.pytorch.utilities import rank_zero_only

from aft_lens.checkpoint import read_metrics
from aft_lens.training import (
    TrainingStopped,
    add_recipe,
    list_recipes,
    parse_recipe,
    recipe_of,
    recipe_path,
    start_model,
    train,
)
from analyses.command import add_yes_or_no


def train_parser() -> ArgumentParser:
    """The parser of `aft-lens train`, whose options are the fields of `Recipe`."""
    words = "Train a recipe; its fields are options, e.g. --model.depth 6 --seed 1."
    parser = ArgumentParser(prog="aft-lens train", description=words)
    parser.add_argument("--name", type=str | None, default=None, help="folder below --out; default: the recipe's name")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="where runs are kept")
    add_yes_or_no(parser, "resume", False, "go on with a broken run")
    parser.add_argument("--start", type=Path | None, default=None, help="checkpoint whose weights training starts from")
    add_recipe(parser)
    return parser


def main(arguments: list[str]) -> int:
    """Train; 0 if the run is whole, 1 (and a line on stderr) if it was stopped."""
    arguments, default = _recipe_files(arguments)
    parser = train_parser()
    chosen = parse_recipe(parser, arguments)
    if default is None and chosen.name is None:
        raise ValueError(f"give --recipe with one of: {', '.join(list_recipes())}; or --name for a run of your own")
    recipe = recipe_of(parser, chosen)
    name = chosen.name or (f"{default}-seed{recipe.seed}" if recipe.seed else default)
    resume = chosen.resume
    start = start_model(chosen.start, recipe.model) if chosen.start and not resume else None
    origin = str(chosen.start) if start else None
    try:
        path = train(recipe, Path(chosen.out) / str(name), resume=resume, start=start, origin=origin)
    except TrainingStopped as stopped:
        print(f"aft-lens train: {stopped}", file=sys.stderr)
        return 1
    if getattr(rank_zero_only, "rank", 0):  # the first of the processes that train together speaks for them
        return 0
    last = read_metrics(path)[-1]
    shown = [f"{key} {last[key]:.4g}" for key in ("val_accuracy", "val_loss") if key in last]
    print(f"wrote {path}: {', '.join(shown)}")
    return 0


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
