"""What models there are: folders below the roots, runs, and other libraries' ViTs that are on this machine."""

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from aft_lens.checkpoint import (
    CONFIG,
    METRICS,
    WEIGHTS,
    held_out_accuracy,
    list_checkpoints,
    read_config,
    read_metrics,
    revision,
)
from aft_lens.errors import answer, markless
from aft_lens.models import DecoderConfig
from aft_lens.record import Record
from aft_lens.weights import read_header
from app.back import opened
from app.held import Held
from app.models import Entry
from app.places import SHIPPED, allowed

STALE_SECONDS = 600.0
"""A run whose files have not changed for this long is taken to have stopped."""
FOREIGN = ("timm", "torchvision", "hf")
LIBRARY = {"hf": "transformers"}
_ENTRIES = Held(4 * 2**20)


def models(roots: list[str]) -> list[Entry]:
    """Every checkpoint below the roots: its folder's name is its label, with its parent's where two share one."""
    paths = [path for root in roots for path in list_checkpoints(root)]
    names = [path.name for path in paths]
    found: dict[str, Entry] = {}
    for path in paths:
        label = markless(path.name if names.count(path.name) == 1 else "/".join(path.parts[-2:]))
        if label not in found:
            found[label] = _entry(label, path)
    return list(found.values())


def described(source: str) -> Entry:
    """A model by its path or as word:NAME, whatever came of it; InputError where it may not be looked into."""
    word = source.partition(":")[0]
    if word in FOREIGN and not Path(source).exists():
        return _foreign(source)
    if not allowed(Path(source)):
        raise ValueError(f"{source} may not be shown here; start the app with --root {source}")
    path = Path(source)
    if not (path / CONFIG).is_file():
        raise ValueError(f"{source} is no checkpoint: it has no {CONFIG}; `aft-lens list` shows those that there are")
    return _entry(markless(str(path)), path)


def libraries() -> list[tuple[str, bool, list[str]]]:
    """Word, whether its library is installed, and its models whose weights are on this machine."""
    return [(word, find_spec(LIBRARY.get(word, word)) is not None, sorted(_local(word))) for word in FOREIGN]


def _local(word: str) -> Iterator[str]:
    """word:NAME of models with weights in the library's cache."""
    if word == "torchvision":
        import torch  # noqa: PLC0415 - a path of its own

        for file in (Path(torch.hub.get_dir()) / "checkpoints").glob("vit_*-*.pth"):
            yield f"torchvision:{file.stem.rpartition('-')[0]}"
        return
    from huggingface_hub.constants import HF_HUB_CACHE  # noqa: PLC0415 - optional

    for folder in Path(HF_HUB_CACHE).glob("models--*"):
        parts = folder.name.split("--")[1:]
        if not any(folder.glob("snapshots/*/*.safetensors")) and not any(folder.glob("snapshots/*/*.bin")):
            continue
        if word == "timm" and parts[0] == "timm":
            yield f"timm:{parts[-1].partition('.')[0]}"
        elif word == "hf" and parts[0] != "timm":
            yield f"hf:{'/'.join(parts)}"


def _foreign(source: str) -> Entry:
    """Another library's ViT, opened."""
    word = source.partition(":")[0]
    try:
        found = opened.reader(source, "")
        weights = sum(parameter.numel() for parameter in found.model.parameters())
        return Entry(
            source, source, "", "ViT", "attention", len(found.layers), found.num_heads, 0, found.grid[0],
            found.data or "", None, weights, 0, word,
        )  # fmt: skip
    except Exception as error:  # a library's own errors too: a row with words
        return Entry(source, source, origin=word, problem=answer(error) or f"{type(error).__name__}: {error}"[:300])


def _entry(label: str, path: Path) -> Entry:
    """A checkpoint's entry from its configuration and list of weights alone."""
    found = _ENTRIES.get((str(path), _stamp(path)), lambda: _described(label, path))
    return replace(found, label=label)  # what it is called depends on the others


def _described(label: str, path: Path) -> Entry:
    try:
        found = read_config(path)
        model, traits = found.model, found.model.traits
        header = read_header(path / WEIGHTS)
        weights = sum(math.prod(one.shape) for one in header.values())
        if isinstance(model, DecoderConfig):
            return Entry(
                label, str(path), revision(path), traits.label, traits.weights, model.depth, model.num_heads,
                model.window_size if model.mixer == "aft_local" else 0, 0, str(found.data.get("name", "")), None,
                weights, 0, _origin(path), "decoder",
            )  # fmt: skip
        kept = sum(count for count in model.keep) * model.num_heads if model.keep else 0
        return Entry(
            label, str(path), revision(path), traits.label, traits.weights, model.depth, model.num_heads,
            model.window_size if traits.weights == "offset" else 0, model.grid_size, str(found.data.get("name", "")),
            _accuracy(path, found), weights, kept, _origin(path),
        )  # fmt: skip
    except (ValueError, OSError) as error:
        return Entry(label, str(path), problem=answer(error) or str(error))


def _accuracy(path: Path, record: Record) -> float | None:
    """`held_out_accuracy`, or None where it cannot be read."""
    try:
        return held_out_accuracy(record, read_metrics(path))
    except (ValueError, OSError):
        return None


def _origin(path: Path) -> str:
    if path.resolve().is_relative_to(SHIPPED.resolve()):
        return "shipped"
    state = path.with_name(f"{path.name}.state")
    if state.is_dir():  # a run keeps it until it has ended
        times = [file.stat().st_mtime for file in (path / METRICS, state) if file.exists()]
        if any(abs(time.time() - each) < STALE_SECONDS for each in times):
            return "in progress"
    return "run" if "runs" in path.parts else "checkpoint"


def _stamp(path: Path) -> tuple[float, ...]:
    """Times and sizes of the files that make a revision, so that unchanged ones are not hashed again."""
    try:
        files = [(path / part).stat() for part in (WEIGHTS, CONFIG)]
    except OSError:
        return (math.nan,)
    metrics = (path / METRICS).stat().st_mtime if (path / METRICS).is_file() else 0.0
    return (*(number for file in files for number in (file.st_mtime, file.st_size)), metrics)
