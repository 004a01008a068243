"""What pages ask for, by model: answered by other processes, and kept here within a bound."""

import time
from collections.abc import Mapping
from typing import Any

from aft_lens.errors import InputError
from app.back.link import LINK
from app.held import Held
from app.maps import Looks
from app.models import Entry
from app.places import roots

HELD = Held(96 * 2**20)
"""Maps and pictures that any visitor has asked for."""
FRESH = 2.0
"""Seconds for which a listing of folders is taken to be true."""
_LISTED: dict[str, tuple[float, dict[str, Entry]]] = {}


def catalogue() -> dict[str, Entry]:
    """Every checkpoint below the roots by label, also those that cannot be read."""
    where = [str(path) for path in roots()]
    key = "\n".join(where)
    if key not in _LISTED or time.monotonic() - _LISTED[key][0] > FRESH:
        found = LINK.read("listing:models", roots=where)
        _LISTED.clear()
        _LISTED[key] = time.monotonic(), {entry.label: entry for entry in found}
    return _LISTED[key][1]


def entry_of(label: str) -> Entry:
    """A model by its label in the catalogue, its path, or as word:NAME; InputError in words where it cannot be had."""
    known = catalogue()
    if label in known:
        return known[label]
    found: Entry = HELD.get(("entry", label), lambda: LINK.read("listing:described", source=label))
    if found.problem:
        HELD.forget(("entry", label))  # it may be there the next time
    return found


def libraries() -> list[tuple[str, bool, list[str]]]:
    """Word, whether the library is installed, and its models whose weights are here."""
    return HELD.get("libraries", lambda: LINK.read("listing:libraries"))


def looks(entry: Entry) -> Looks:
    """Position biases of an AFT by layer and head; InputError for a model that has none."""
    if not entry.looks or entry.looks == "attention":
        raise InputError(f"{entry.label} is {entry.mixer}: it has no position bias to show. Choose another model.")
    return _read("reads:looks", entry)


def samples(entry: Entry, data: str) -> dict[str, Any]:
    """How many test images a model's data has, its classes, and what is to be said of them."""
    return _read("reads:samples", entry, data=data)


def seen(entry: Entry, data: str, image: Mapping[str, Any]) -> dict[str, Any]:
    """A picture as a model takes it, its class, and what the model says of it."""
    return _read("reads:seen", entry, data=data, image=dict(image))


def keys(entry: Entry, data: str, image: Mapping[str, Any]) -> Looks:
    """Keys of one image."""
    return _read("reads:keys", entry, data=data, image=dict(image))


def effective(
    entry: Entry, data: str, image: Mapping[str, Any], target: tuple[int, int] | None, part: str
) -> dict[str, Any]:
    """What a target of one image reads, by layer and head."""
    return _read("reads:effective", entry, data=data, image=dict(image), target=target, part=part)


def snapshots(path: str, written: float, single: bool) -> dict[int, Looks]:
    """exp(w) − 1 of a run by epoch, as its files were at `written`."""
    return HELD.get(
        ("snapshots", path, written, single), lambda: LINK.read("reads:snapshots", source=path, single=single)
    )


def lines(kind: str, arguments: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    """The command and the Python that make what a kind of job makes; `revision` is no part of them."""
    given = {name: value for name, value in arguments.items() if name != "revision"}
    if "upload" in given.get("image", {}):
        given["image"] = {**given["image"], "upload": b""}  # a file of the visitor's own, whatever is in it
    return HELD.get(("lines", kind, repr(given)), lambda: LINK.read(f"lines:{kind}", **given))


def upload_words(content: bytes) -> str:
    """How an upload is read; InputError in words for one that cannot be."""
    return LINK.read("reads:upload_words", content=content)


def _read(name: str, entry: Entry, **more: Any) -> Any:
    """A read of a model, kept under its revision."""
    key = (name, entry.source, entry.revision, *(_hashable(value) for value in more.values()))
    return HELD.get(key, lambda: LINK.read(name, source=entry.source, revision=entry.revision, **more))


def _hashable(value: Any) -> Any:
    return tuple(sorted(value.items())) if isinstance(value, dict) else value


def recipes() -> list[str]:
    """Names of the recipes that ship."""
    found: list[str] = HELD.get("recipes", lambda: LINK.read("names:recipes"))
    return found


def criteria() -> list[str]:
    """Names of pruning criteria that answer while one waits."""
    found: list[str] = HELD.get("criteria", lambda: LINK.read("names:criteria"))
    return [name for name in found if name != "exact"]


def pages() -> dict[str, str]:
    """Analyses that show themselves of one checkpoint, and their words."""
    return dict(HELD.get("pages", lambda: LINK.read("names:pages")))
