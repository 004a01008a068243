"""Recipes from YAML files and options: a registered model's fields first, then the file's, then the options."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, Namespace

from aft_lens.data import DataSource
from aft_lens.errors import InputError
from aft_lens.models import model_config
from aft_lens.record import SECTIONS
from aft_lens.text_files import read_yaml
from aft_lens.training.recipe import Recipe

RECIPES = Path(__file__).parents[1] / "recipes"
OF_DATA = ("in_chans", "num_classes")
"""Fields of a model that its data know."""


def list_recipes() -> list[str]:
    """Names of the recipes that ship, in alphabetical order."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def recipe_path(name: str) -> Path:
    """The file of a shipped recipe, or the file itself; ValueError (and which there are) if there is none."""
    for path in (RECIPES / f"{name}.yaml", Path(name)):
        if path.is_file():
            return path
    raise ValueError(f"recipe {name!r} is unknown; give a YAML file or one of: {', '.join(list_recipes())}")


def read_recipe(name: str, *changes: str) -> Recipe:
    """A shipped recipe, or that of a YAML file, with fields changed: `read_recipe("digits-conv", "trainer.epochs=2")`.

    Raises ValueError on an unknown recipe, field, model or value.
    """
    parser = ArgumentParser(exit_on_error=False)
    add_recipe(parser)
    words = [f"--recipe={recipe_path(name)}", *(f"--{change}" for change in changes)]
    try:
        return recipe_of(parser, parse_recipe(parser, words))
    except Exception as error:  # jsonargparse's own, which derives from Exception alone
        raise ValueError(f"recipe {name!r}: {error}") from error


def add_recipe(parser: ArgumentParser) -> None:
    """Give a parser the options --recipe and, one a field, those of `Recipe`."""
    parser.add_argument("--recipe", action=ActionConfigFile, help="a shipped recipe's name, or a YAML file")
    parser.add_class_arguments(Recipe, as_group=False)


def parse_recipe(parser: ArgumentParser, words: Sequence[str]) -> Namespace:
    """Parse words of which --recipe is a file; where they or the file name a model, its fields are the defaults."""
    files = {file: _content(Path(file)) for file in _values(words, "--recipe")}
    name = _model_name(words, list(files.values()))
    if name:
        parser.set_defaults({f"model.{field}": value for field, value in asdict(model_config(name)).items()})
    texts = {file: yaml.safe_dump(content, sort_keys=False) for file, content in files.items()}
    return parser.parse_args([_with_text(word, texts) for word in words])


def recipe_of(parser: ArgumentParser, parsed: Namespace) -> Recipe:
    """The recipe in what a parser with `add_recipe` parsed."""
    made = parser.instantiate(parsed)
    return Recipe(made.model, made.data, made.optim, made.sparsity, made.trainer, made.seed)


def fitted(recipe: Recipe, data: DataSource, words: Sequence[str]) -> Recipe:
    """The recipe with the channels and classes of its data in its model, where neither words nor a file name others."""
    given = {option for option in OF_DATA if _values(words, f"--model.{option}")}
    for file in _values(words, "--recipe"):
        model = _content(Path(file)).get("model")
        given |= set(OF_DATA) & set(model if isinstance(model, dict) else ())
    found = {"in_chans": data.in_chans, "num_classes": len(data.classes)}
    fields: dict[str, Any] = {name: value for name, value in found.items() if name not in given}
    return replace(recipe, model=replace(recipe.model, **fields))


def _content(file: Path) -> dict[str, Any]:
    """The fields in a recipe's file; of a run's own config.yaml those of the recipe that it was trained by."""
    found = read_yaml(file)
    kept = found.get("recipe")
    if not isinstance(kept, dict):
        return found
    if not isinstance(kept.get("model"), dict):
        raise InputError(f"{file} is of a run without a recipe; give --recipe with one of: {', '.join(list_recipes())}")
    return {name: kept[name] for name in (*SECTIONS, "seed") if name in kept}


def _with_text(word: str, texts: Mapping[str, str]) -> str:
    """A word that names a recipe's file, alone or behind --recipe=, with what is in the file instead."""
    file = word.removeprefix("--recipe=")
    if file not in texts:
        return word
    return texts[file] if word == file else f"--recipe={texts[file]}"


def _model_name(words: Sequence[str], recipes: Sequence[Mapping[str, Any]]) -> str:
    """The registered model that the options name, or else the recipe's file; empty for none."""
    named = _values(words, "--model.name")
    for content in reversed(recipes):
        model = content.get("model")
        if isinstance(model, dict) and model.get("name"):
            named.insert(0, str(model["name"]))
    return named[-1] if named else ""


def _values(words: Sequence[str], option: str) -> list[str]:
    """The values of an option, given as one word with = or as two."""
    found = [word.partition("=")[2] for word in words if word.startswith(f"{option}=")]
    return found + [after for word, after in pairwise(words) if word == option]
