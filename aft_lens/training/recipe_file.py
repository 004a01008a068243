"""Recipes from YAML files and options: a registered model's fields first, then the file's, then the options."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, Namespace

from aft_lens.data import DataSource
from aft_lens.data.sequences import SequenceSource
from aft_lens.errors import InputError
from aft_lens.models import decoder_config, list_decoders, model_config
from aft_lens.record import SECTIONS
from aft_lens.text_files import read_yaml
from aft_lens.training.recipe import AnyRecipe, DecoderRecipe, Recipe

RECIPES = Path(__file__).parents[1] / "recipes"


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

    Raises ValueError on an unknown recipe, field, model or value, and on one of a decoder.
    """
    recipe = _read(name, changes)
    if not isinstance(recipe, Recipe):
        raise ValueError(f"recipe {name!r} is of a decoder; read it by read_decoder_recipe")
    return recipe


def read_decoder_recipe(name: str, *changes: str) -> DecoderRecipe:
    """A decoder's recipe, as `read_recipe` reads one of a vision model; errors alike."""
    recipe = _read(name, changes)
    if not isinstance(recipe, DecoderRecipe):
        raise ValueError(f"recipe {name!r} is of a vision model; read it by read_recipe")
    return recipe


def _read(name: str, changes: Sequence[str]) -> AnyRecipe:
    """The recipe of either kind."""
    parser = ArgumentParser(exit_on_error=False)
    words = [f"--recipe={recipe_path(name)}", *(f"--{change}" for change in changes)]
    try:
        add_recipe(parser, words)
        return recipe_of(parser, parse_recipe(parser, words))
    except Exception as error:  # jsonargparse's own, which derives from Exception alone
        raise ValueError(f"recipe {name!r}: {error}") from error


def add_recipe(parser: ArgumentParser, words: Sequence[str] = ()) -> None:
    """Give a parser the options --recipe and, one a field, those of the recipe that the words are about."""
    parser.add_argument("--recipe", action=ActionConfigFile, help="a shipped recipe's name, or a YAML file")
    parser.add_class_arguments(_kind(words), as_group=False)


def parse_recipe(parser: ArgumentParser, words: Sequence[str]) -> Namespace:
    """Parse words of which --recipe is a file; where they or the file name a model, its fields are the defaults."""
    files = {file: _content(Path(file)) for file in _values(words, "--recipe")}
    name = _model_name(words, list(files.values()))
    if name:
        config = decoder_config(name) if name in list_decoders() else model_config(name)
        parser.set_defaults({f"model.{field}": value for field, value in asdict(config).items()})
    texts = {file: yaml.safe_dump(content, sort_keys=False) for file, content in files.items()}
    return parser.parse_args([_with_text(word, texts) for word in words])


def recipe_of(parser: ArgumentParser, parsed: Namespace) -> AnyRecipe:
    """The recipe in what a parser with `add_recipe` parsed."""
    made = parser.instantiate(parsed)
    if "sparsity" in made:
        return Recipe(made.model, made.data, made.optim, made.sparsity, made.trainer, made.seed)
    return DecoderRecipe(made.model, made.data, made.optim, made.trainer, made.seed)


def fitted(recipe: Recipe, data: DataSource, words: Sequence[str]) -> Recipe:
    """The recipe with the channels and classes of its data in its model, where neither words nor a file name others."""
    found = {"in_chans": data.in_chans, "num_classes": len(data.classes)}
    return replace(recipe, model=replace(recipe.model, **_not_given(found, words)))


def fitted_decoder(recipe: DecoderRecipe, data: SequenceSource, words: Sequence[str]) -> DecoderRecipe:
    """The recipe with the symbols of its data in its model, where neither words nor a file name others."""
    found = {"vocab_size": data.vocab_size, "length": data.length, "grid": data.grid}
    return replace(recipe, model=replace(recipe.model, **_not_given(found, words)))


def _not_given(found: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """Those of a model's fields that neither words nor a recipe's file give."""
    given = {option for option in found if _values(words, f"--model.{option}")}
    for file in _values(words, "--recipe"):
        model = _content(Path(file)).get("model")
        given |= set(found) & set(model if isinstance(model, dict) else ())
    return {name: value for name, value in found.items() if name not in given}


def _kind(words: Sequence[str]) -> type[AnyRecipe]:
    """What the words' recipe is of: a decoder where they or a file name one, or its file has a decoder's fields."""
    contents = [_content(Path(file)) for file in _values(words, "--recipe") if Path(file).is_file()]
    models = [content.get("model") for content in contents]
    named = _model_name(words, contents) in list_decoders()
    return DecoderRecipe if named or any("vocab_size" in (model or ()) for model in models) else Recipe


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
