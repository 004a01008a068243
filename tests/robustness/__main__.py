"""python -m robustness (from tests/): the long run, which publishes analyses/results/robustness.json."""

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from jsonargparse import auto_cli

from aft_lens.checkpoint import commit
from aft_lens.files import write_whole
from analyses.provenance import RESULTS, commanded, environment
from analyses.result import dump
from robustness import inputs, jobs, kills, limits, sessions

FAULTS = {
    "other end", "lost", "unreadable", "failed", "traceback", "hang", "allocation", "no words", "otherwise", "error",
    "unanswered", "left open",
}  # fmt: skip
"""Outcomes that there should be none of."""
Part = Literal["kills", "inputs", "limits", "sessions"]
PARTS: tuple[Part, ...] = ("kills", "inputs", "limits", "sessions")
Found = Iterator[tuple[str, int, dict[str, Any]]]
"""What was attacked, how often, and what came of it."""
METHOD = (
    "Each row is of the commit that it names, on the hardware that it names (older rows name none), and may be run "
    "alone (`--parts`, `--killed`), as often as `tried` says."
)


def _kills(names: Sequence[str], count: int, folder: Path, seed: int) -> Found:
    for name in names:
        found = kills.attack(-(-count // len(names)), folder / "kills", seed, (name,))[name]
        yield f"kill -9: {name}", found.pop("kills"), found


def _inputs(count: int, folder: Path, seed: int) -> Found:
    for kind, found in inputs.attack(-(-count // 4), folder / "inputs", seed).items():
        yield f"mutated {kind}", found["read"] + found["answered"] + found["traceback"], found


def _limits(folder: Path) -> Found:
    for name in limits.LIMITS:
        found = limits.attack(folder / "limits", (name,))[name]
        yield name, int("untried" not in found), found


def _sessions(visitors: int, steps: int, seed: int) -> Found:
    found = sessions.attack(visitors, steps, seed)
    yield f"{visitors} visitors at once", found.pop("steps"), found
    yield "half-open connections", 300, sessions.half_open(300)
    yield "prunes in the app", 6, sessions.prunes(6)


def command(
    parts: Sequence[Part] = PARTS, kills_of: int = 200, inputs_of: int = 10_000, visitors: int = 20, steps: int = 200,
    killed: Sequence[str] = tuple(jobs.JOBS), seed: int = 0,
    out: Path = RESULTS / "robustness.json",
) -> None:  # fmt: skip
    """Attack, and put what came of it into the record, whose other parts stay; each row has its own commit.

    Args:
        parts: What is attacked.
        kills_of: Kills of all jobs together.
        inputs_of: Mutated inputs of all kinds together.
        visitors: Sessions of the app at once.
        steps: Pages that each of them asks for.
        killed: Jobs that are killed.
        seed: Of every draw.
        out: The record.
    """
    attacks: dict[Part, Callable[[Path], Found]] = {
        "kills": lambda folder: _kills(killed, kills_of, folder, seed),
        "inputs": lambda folder: _inputs(inputs_of, folder, seed),
        "limits": _limits,
        "sessions": lambda folder: _sessions(visitors, steps, seed),
    }
    with tempfile.TemporaryDirectory() as folder, commanded("make", "robustness"):
        for part in parts:
            for what, tried, found in attacks[part](Path(folder)):
                faults = sum(number for word, number in found.items() if word in FAULTS)
                words = ", ".join(f"{number} {word}" for word, number in found.items() if number) or "none"
                row = {"part": part, "attack": what, "tried": tried, "faults": faults, "outcome": words}
                _put(out, row | {"seed": seed, "commit": commit(), "hardware": environment()["hardware"]})
                print(f"{what}: {tried} tried, {faults} faults ({words})", flush=True)


def _put(out: Path, row: dict[str, Any]) -> None:
    """Replace an attack's row in the record, or add it."""
    rows = json.loads(out.read_text(encoding="utf-8"))["rows"] if out.is_file() else []
    places = [number for number, each in enumerate(rows) if each["attack"] == row["attack"]]
    rows[slice(places[0], places[0] + 1) if places else slice(len(rows), None)] = [row]
    write_whole(out, dump({"command": "make robustness", **environment(), "method": METHOD, "rows": rows}))


if __name__ == "__main__":
    auto_cli(command)
