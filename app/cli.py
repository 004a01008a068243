"""The `aft-lens` command: one subcommand a job, analyses loaded only when asked for."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch.utilities import rank_zero_only

from aft_lens.checkpoint import list_checkpoints, load_checkpoint, read_metrics
from aft_lens.data import DATASETS, load_data
from aft_lens.models import list_models, model_config
from aft_lens.training import (
    TrainingStopped,
    add_recipe,
    evaluate,
    list_recipes,
    parse_recipe,
    recipe_of,
    recipe_path,
    start_model,
    train,
)
from analyses.command import add_yes_or_no, run
from app.commands import COMMANDS, command_module, command_words

CHECKPOINT_ROOTS = (Path("checkpoints"), Path("runs"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; 0 if it worked, 2 (and a line on stderr) on bad input, 1 on stopped training."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    own: dict[str, tuple[Callable[[list[str]], None], str]] = {
        "train": (_train, "train a recipe"),
        "evaluate": (_evaluate, "accuracy and loss of a checkpoint"),
        "list": (_list, "models, data sets, recipes and checkpoints"),
    }
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: aft-lens COMMAND [OPTIONS]; `aft-lens COMMAND --help` shows a command's options\n")
        for name, words in {**{name: words for name, (_, words) in own.items()}, **command_words()}.items():
            print(f"  {name:<10} {words}")
        return 0
    name, rest = arguments[0], arguments[1:]
    try:
        if name in own:
            own[name][0](rest)
        elif name in COMMANDS:
            run(command_module(name).command, ("aft-lens", name), rest)
        else:
            raise ValueError(f"command {name!r} is unknown; choose one of: {', '.join([*own, *COMMANDS])}")
    except ModuleNotFoundError as error:
        missing = f"{error.name} is not installed; run: pip install 'aft-lens[app]'"
        print(f"aft-lens {name}: {error if 'aft-lens[' in str(error) else missing}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, FileNotFoundError, FileExistsError, FloatingPointError) as error:
        print(f"aft-lens {name}: {error}", file=sys.stderr)
        return 2
    except TrainingStopped as stopped:
        print(f"aft-lens {name}: {stopped}", file=sys.stderr)
        return 1
    return 0


def _parser(command: str, description: str) -> ArgumentParser:
    return ArgumentParser(prog=f"aft-lens {command}", description=description)


def train_parser() -> ArgumentParser:
    """The parser of `aft-lens train`, whose options are the fields of `Recipe`."""
    parser = _parser("train", "Train a recipe; its fields are options, e.g. --model.depth 6 --seed 1.")
    parser.add_argument("--name", type=str | None, default=None, help="folder below --out; default: the recipe's name")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="where runs are kept")
    add_yes_or_no(parser, "resume", False, "go on with a broken run")
    parser.add_argument("--start", type=Path | None, default=None, help="checkpoint whose weights training starts from")
    add_recipe(parser)
    return parser


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


def _train(arguments: list[str]) -> None:
    """aft-lens train."""
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
    path = train(recipe, Path(chosen.out) / str(name), resume=resume, start=start, origin=origin)
    if getattr(rank_zero_only, "rank", 0):  # the first of the processes that train together speaks for them
        return
    last = read_metrics(path)[-1]
    print(
        f"wrote {path}: " + ", ".join(f"{key} {last[key]:.4g}" for key in ("val_accuracy", "val_loss") if key in last)
    )


def _evaluate(arguments: list[str]) -> None:
    """aft-lens evaluate."""
    parser = _parser("evaluate", "Accuracy and loss with 95 % intervals, and accuracy by class.")
    parser.add_argument("checkpoint", type=Path, help="a checkpoint folder")
    parser.add_argument("--data", type=str | None, default=None, help="data set; default: the one it was trained on")
    parser.add_argument("--root", type=str | None, default=None, help="folder of downloaded data")
    parser.add_argument("--split", type=Literal["train", "val", "test"], default="test")
    parser.add_argument("--device", type=str, default="cpu")
    chosen = parser.parse_args(arguments)
    checkpoint = load_checkpoint(chosen.checkpoint, chosen.device)
    name = chosen.data or checkpoint.data["name"]
    data = load_data(name, root=chosen.root, img_size=checkpoint.data["img_size"])
    data.check_fits(checkpoint.data)
    result = evaluate(checkpoint.model, getattr(data, chosen.split), data.classes, device=chosen.device)
    low, high = result.accuracy_interval
    print(f"{chosen.checkpoint} on {name} ({chosen.split}, {result.images} images; intervals 95 %)")
    print(f"accuracy  {100 * result.accuracy:6.2f} %  [{100 * low:.2f}, {100 * high:.2f}]")
    print(f"loss      {result.loss:6.4f}    [{result.loss_interval[0]:.4f}, {result.loss_interval[1]:.4f}]")
    for label, count, accuracy in result.by_class:
        print(f"  {label:<20} {100 * accuracy:6.2f} %  of {count}")


def _list(arguments: list[str]) -> None:
    """aft-lens list."""
    parser = _parser("list", "What there is to train, load and look at.")
    parser.add_argument("--root", type=Path, nargs="+", help="folders with checkpoints; default: checkpoints runs")
    chosen = parser.parse_args(arguments)
    missing = [str(path) for path in chosen.root or () if not path.is_dir()]
    if missing:
        raise ValueError(f"root must be existing folders, got {', '.join(missing)}")
    print("models")
    for name in list_models():
        config = model_config(name)
        print(
            f"  {name:<26} {config.mixer:<10} "
            f"width {config.embed_dim:<4} depth {config.depth:<3} heads {config.num_heads}"
        )
    print("data sets\n  " + "\n  ".join(DATASETS))
    print("recipes")
    for name in list_recipes():
        print(f"  {name:<26} {recipe_path(name).read_text().splitlines()[0].lstrip('# ')}")
    print("checkpoints")
    for path in (path for root in chosen.root or CHECKPOINT_ROOTS for path in list_checkpoints(root)):
        record = yaml.safe_load((path / "config.yaml").read_text())
        rows = read_metrics(path)
        accuracy = rows[-1].get("val_accuracy") if rows else None
        score = "" if accuracy is None else f"val accuracy {100 * accuracy:.1f} %"
        print(f"  {path!s:<32} {record['model']['mixer']:<10} {record['data'].get('name', '?'):<14} {score}")


if __name__ == "__main__":
    sys.exit(main())
