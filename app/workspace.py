"""The one state that all pages share, and its address: what is looked at, whole and in words where it cannot be."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from app.maps import MEASURES

OWN, LOG, RANK, SHARED = "own", "log", "rank", "shared"
SCALES: Mapping[str, str] = {
    OWN: "Each head",
    LOG: "Signed log",
    RANK: "Rank",
    SHARED: "Shared",
}
"""How values become colours."""
NEAR, WHOLE = "both", "all"
FRAMES: Mapping[str, str] = {NEAR: "In both models", WHOLE: "All"}
PLACE, STRONGEST = "place", "strength"
SORTS: Mapping[str, str] = {PLACE: "Layer and head", **{name: name.capitalize() for name in MEASURES}}
FILTERS: Mapping[str, str] = {"all": "All heads", "active": "That do something", "learned": "Made by training"}
PAIRS: Mapping[str, str] = {"number": "Same number", "match": "By likeness"}
SIDES = ("a", "b")
PARTS: Mapping[str, str] = {"all": "Keys and position", "position": "Position alone", "content": "Keys alone"}
CLASS_TOKEN = "class"
UPLOAD = "upload"
MOST = 10**6
"""Largest number that an address may hold."""


@dataclass(frozen=True)
class Field:
    """One choice: its default, and how it is read from an address and written into it."""

    default: Any
    read: Callable[[str], Any]
    expected: str
    """What an address may say, in words."""
    write: Callable[[Any], str] = str


def _one_of(options: Iterable[str], default: str) -> Field:
    known = list(options)

    def read(text: str) -> str:
        if text not in known:
            raise ValueError
        return text

    return Field(default, read, f"one of {', '.join(known)}")


def _number(default: int, least: int = 0, most: int = MOST) -> Field:
    def read(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise ValueError
        return value

    return Field(default, read, f"a whole number from {least}")


def _pair(default: tuple[int, int]) -> Field:
    def read(text: str) -> tuple[int, int]:
        y, x = (int(part) for part in text.split("."))
        if max(abs(y), abs(x)) > MOST:
            raise ValueError
        return y, x

    return Field(default, read, "two whole numbers with a dot between them", lambda value: f"{value[0]}.{value[1]}")


def _words(default: str, longest: int = 400) -> Field:
    def read(text: str) -> str:
        if len(text) > longest or not text.isprintable():
            raise ValueError
        return text

    return Field(default, read, f"text of up to {longest} characters")


def _list(default: tuple[Any, ...], read_one: Callable[[str], Any], expected: str) -> Field:
    def read(text: str) -> tuple[Any, ...]:
        return tuple(dict.fromkeys(read_one(part) for part in text.split(",") if part))

    return Field(default, read, expected, lambda value: ",".join(map(str, value)))


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1.5:
        raise ValueError
    return value


def _target(text: str) -> Any:
    return CLASS_TOKEN if text == CLASS_TOKEN else _pair((0, 0)).read(text)


FIELDS: Mapping[str, Field] = {
    "a": _words(""),
    "b": _words(""),
    "data": _words(""),
    "image": Field(
        "0", lambda text: text if text == UPLOAD else _number(0).write(_number(0).read(text)),
        "the number of a test image, or upload",
    ),
    "invert": _one_of(("no", "yes"), "no"),
    "layer": _number(0),
    "head": _number(0),
    "offset": _pair((0, 0)),
    "target": Field(CLASS_TOKEN, _target, "row.column of a patch, or class",
                    lambda value: value if value == CLASS_TOKEN else f"{value[0]}.{value[1]}"),
    "place": _pair((0, 0)),
    "part": _one_of(PARTS, "all"),
    "scale": _one_of(SCALES, OWN),
    "frame": _one_of(FRAMES, NEAR),
    "sort": _one_of(SORTS, PLACE),
    "show": _one_of(FILTERS, "all"),
    "from": _number(0),
    "pair": _one_of(PAIRS, "number"),
    "difference": _one_of(("no", "yes"), "no"),
    "images": _number(256, 8, 10_000),
    "klass": _words("all"),
    "wrong": _one_of(("no", "yes"), "no"),
    "side": _one_of(SIDES, "a"),
    "keep": _list((1, 2, 4, 8, 16), lambda part: _number(0, 0, 625).read(part), "numbers with commas between"),
    "by": _list(("magnitude", "random"), lambda part: _words("").read(part), "names of criteria with commas between"),
    "runs": _list((), lambda part: _words("").read(part), "names of runs with commas between"),
    "epoch": _number(MOST),
    "da": _words(""),
    "db": _words(""),
    "given": _number(50, 0, 90),
    "temperature": Field(1.0, _share, "a number from 0 to 1.5", lambda value: f"{value:g}"),
    "seed": _number(0, 0, 2**31),
    "analysis": _words(""),
    "projection": _one_of(("PCA", "UMAP"), "PCA"),
}  # fmt: skip
"""Every choice by its name in the address."""


@dataclass(frozen=True)
class Workspace:
    """What is chosen, on every page alike."""

    values: Mapping[str, Any] = field(default_factory=lambda: {name: one.default for name, one in FIELDS.items()})

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def step(self, **chosen: Any) -> "Workspace":
        """The same with other choices; KeyError on a name that is none."""
        unknown = chosen.keys() - FIELDS.keys()
        if unknown:
            raise KeyError(", ".join(sorted(unknown)))
        return replace(self, values={**self.values, **chosen})

    def address(self) -> dict[str, str]:
        """All of it as an address's query, defaults too, so that a link means the same tomorrow."""
        return {name: one.write(self.values[name]) for name, one in FIELDS.items()}


def read_address(query: Mapping[str, str], before: Workspace | None = None) -> tuple[Workspace, list[str]]:
    """The workspace of an address, and in words what in it cannot be; what it leaves out is as `before`."""
    found = before or Workspace()
    problems = []
    values: dict[str, Any] = {}
    for name, text in query.items():
        if name not in FIELDS:
            problems.append(f"the address says {name[:40]}, which is nothing that can be chosen here")
            continue
        try:
            values[name] = FIELDS[name].read(text)
        except ValueError:
            problems.append(f"{name} must be {FIELDS[name].expected}, the address says {text[:60]!r}")
    return found.step(**values), problems
