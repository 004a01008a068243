"""Runs that are started from the page: a process each, which goes on when the page is closed, and is stopped softly."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.back.link import THREADS
from app.places import SHIPPED, WRITE_VARIABLE, roots

_ONE_BY_ONE = """import json, sys
from app.cli import main
sys.exit(next((status for words in json.loads(sys.argv[1]) if (status := main(words))), 0))"""
"""Commands one after the other, up to the first that fails."""
LAST = 400
"""Characters of what a run said last."""


@dataclass
class Training:
    """A run that this server started."""

    name: str
    path: Path
    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def runs(self) -> bool:
        """Whether it goes on."""
        return self.process.poll() is None

    @property
    def said(self) -> str:
        """What it said last."""
        try:
            return self.log.read_text(encoding="utf-8", errors="replace")[-LAST:].strip()
        except OSError:
            return ""


STARTED: dict[str, Training] = {}


def may_write() -> bool:
    """Whether visitors may start and stop runs here."""
    return os.environ.get(WRITE_VARIABLE) == "1"


def folder() -> Path:
    """Where runs go: a root called runs, else the first root that can be written."""
    places = roots()
    named = [place for place in places if place.name == "runs"]
    return next((place for place in [*named, *places] if place.is_dir() and os.access(place, os.W_OK)), Path("runs"))


def train_words(recipe: str, name: str, *, epochs: int, seed: int) -> list[str]:
    """The words after `aft-lens` of a run of a recipe."""
    return [
        "train", "--recipe", recipe, "--name", name, "--out", str(folder()), "--trainer.epochs", str(epochs),
        "--seed", str(seed),
    ]  # fmt: skip


def transfer_words(source: str, recipe: str, name: str, *, biases: str, epochs: int, seed: int) -> list[list[str]]:
    """Those of the two commands that start a recipe's AFT-conv from a ViT: NAME-start is written, then trained on."""
    first = str(folder() / f"{name}-start")
    if Path(source).parent == SHIPPED:  # commands know it by its name
        source = Path(source).name
    made = ["transfer", source, "--to", recipe, "--out", first, "--biases", biases, "--seed", str(seed)]
    return [made, [*train_words(recipe, name, epochs=epochs, seed=seed), "--start", first]]


def begin(name: str, commands: Sequence[Sequence[str]]) -> Training:
    """Start a run by commands one after the other; ValueError, in words, where it may not be or its name is taken."""
    if not may_write():
        raise ValueError("runs are started from a terminal here; this server was not started for that")
    if not name or Path(name).name != name or name.startswith("."):
        raise ValueError(f"name must be that of a folder, got {name!r}")
    path = folder() / name
    taken = [place for place in (path, path.with_name(f"{name}.state"), path.with_name(f"{name}-start"))
             if place.exists()]  # fmt: skip
    if taken:
        raise ValueError(f"{taken[0]} is there already; choose another name")
    handle, log = tempfile.mkstemp(prefix=f"aft-lens-{name}-", suffix=".log")
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _ONE_BY_ONE, json.dumps([*map(list, commands)])], env={**os.environ, **THREADS},
        stdout=handle, stderr=handle, start_new_session=True,
    )  # fmt: skip
    os.close(handle)
    STARTED[name] = Training(name, path, process, Path(log))
    return STARTED[name]


def stop(name: str) -> None:
    """Ask a run to end after what it does now; it can go on with --resume."""
    training = STARTED.get(name)
    if training is not None and training.runs:
        training.process.send_signal(signal.SIGTERM)
