"""What a checkpoint's config.yaml says, checked before anything is made of it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from aft_lens.errors import InputError
from aft_lens.files import CONFIG
from aft_lens.models import KINDS, Config, DecoderConfig, ModelConfig
from aft_lens.text_files import read_yaml

MOST_CLASSES = 100_000
LONGEST = 1000
"""Characters of a name."""
SECTIONS = ("model", "data", "optim", "sparsity", "trainer")
"""Of a recipe, what holds fields of its own."""


class DataRecord(dict[str, Any]):
    """What a checkpoint keeps of its data; asking for a field that it has not is answered in words."""

    def __missing__(self, key: str) -> Any:
        raise InputError(f"{CONFIG} of the checkpoint has no data.{key}; train it again or restore the file")


@dataclass(frozen=True)
class Record:
    """A checked config.yaml."""

    model: Config
    data: DataRecord
    recipe: dict[str, Any]
    seed: int
    digest: str | None
    """SHA-256 of the weights that were saved with it; None in checkpoints of earlier versions."""
    start: str | None
    """Where its first weights are from; None where they were drawn."""


def read_record(folder: Path | str) -> Record:
    """Read and check a checkpoint's config.yaml.

    Raises InputError, naming the file, the field and what came, unless every field has its type and range; and
    FileNotFoundError, as an OSError, where there is none.
    """
    path = Path(folder) / CONFIG
    content = read_yaml(path)
    try:
        return _checked(content)
    except ValueError as error:  # ModelConfig's own among them
        raise InputError(f"checkpoint {folder}: {CONFIG}: {error}") from error


def _checked(content: Mapping[str, Any]) -> Record:
    """The record in what a file holds."""
    if not isinstance(content.get("model"), dict):
        raise ValueError("has no `model`; train it again or restore the file")
    kind = content.get("kind", "vision")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r:.80}; update aft-lens")
    model, made = _section(content, "model"), KINDS[kind]
    unknown = sorted(set(model) - {field.name for field in fields(made)})
    if unknown:
        raise ValueError(f"has unknown model fields {unknown}; update aft-lens")
    hints = get_type_hints(made)
    config = made(**{name: _typed(f"model.{name}", value, hints[name]) for name, value in model.items()})
    recipe = _section(content, "recipe")
    for name in SECTIONS:
        _section(recipe, name)
    seed = _typed("seed", content.get("seed", 0), int)
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed must be 0 or more and below 2^63, got {seed}")
    digest, start = (content.get(key) and str(content[key]) for key in ("weights", "start"))
    return Record(config, _data(_section(content, "data"), config), recipe, seed, digest, start)


def _section(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A mapping with names as keys, empty where it is left out."""
    found = content.get(name, {})
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise ValueError(f"{name} must hold fields, got {found!r:.80}")
    return found


def _data(data: Mapping[str, Any], config: Config) -> DataRecord:
    """The data's record: of each field that is there, the type and range."""
    out = DataRecord(data)
    if "name" in data:
        out["name"] = _name("data.name", data["name"])
    if isinstance(config, DecoderConfig):
        return _sequences(out, config)
    return _images(out, data, config)


def _sequences(out: DataRecord, config: DecoderConfig) -> DataRecord:
    """Of a decoder's data: whether its symbols are the model's."""
    if "unit" in out:
        out["unit"] = _name("data.unit", out["unit"])
    for key in ("vocab_size", "length"):
        if key in out and _typed(f"data.{key}", out[key], int) != getattr(config, key):
            raise ValueError(f"data.{key} must be the model's {getattr(config, key)}, got {out[key]}")
    if "grid" in out:
        out["grid"] = _typed("data.grid", out["grid"], tuple[int, ...])
        if out["grid"] and math.prod(out["grid"]) != config.length:
            raise ValueError(f"data.grid must hold the model's {config.length} symbols, got {out['grid']}")
    return out


def _images(out: DataRecord, data: Mapping[str, Any], config: ModelConfig) -> DataRecord:
    """Of a vision model's data: classes, and whether channels and sides are the model's."""
    if "classes" in data:
        classes = data["classes"]
        if not isinstance(classes, list) or len(classes) > MOST_CLASSES:
            raise ValueError(f"data.classes must list up to {MOST_CLASSES:,} names, got {classes!r:.80}")
        out["classes"] = [_name("data.classes", each) for each in classes]
    for key, own in (("in_chans", config.in_chans), ("img_size", config.img_size)):
        if key in data and _typed(f"data.{key}", data[key], int) != own:
            raise ValueError(f"data.{key} must be the model's {own}, got {data[key]}")
    for key in ("mean", "std"):
        if key in data:
            values = data[key]
            if not isinstance(values, list) or len(values) != config.in_chans:
                raise ValueError(f"data.{key} must have a number for each of {config.in_chans} channels, got "
                                 f"{values!r:.80}")  # fmt: skip
            out[key] = [_typed(f"data.{key}", value, float) for value in values]
            if key == "std" and min(out[key]) <= 0:
                raise ValueError(f"data.std must be above 0, got {values}")
    return out


def _name(field: str, value: Any) -> str:
    """Text of a sensible length; a number, as YAML reads a class called 3, is its digits."""
    if isinstance(value, bool | int | float):
        value = str(value)
    if not isinstance(value, str) or len(value) > LONGEST:
        raise ValueError(f"{field} must be text of up to {LONGEST} characters, got {value!r:.80}")
    return value


def _typed(field: str, value: Any, kind: Any) -> Any:
    """The value, if it is of the kind that a field is annotated with."""
    if get_origin(kind) is tuple:
        if isinstance(value, list | tuple):
            return tuple(_typed(field, each, get_args(kind)[0]) for each in value)
    elif kind is float:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return value
    elif isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    words = {
        int: "a whole number", float: "a number", str: "text", bool: "true or false", tuple[str, ...]: "texts",
    }.get(kind, "whole numbers")  # fmt: skip
    raise ValueError(f"{field} must be {words}, got {value!r:.80}")
