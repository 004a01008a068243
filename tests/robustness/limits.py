"""Little room: few file handles, little memory, a full disk, a read-only one, a clock set back, warnings as errors.

A whole run is there. Under each limit it is asked to go on: it does, or ends in one line. Then all of it can be read,
no epoch is lost, and without the limit it goes on.
"""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from aft_lens.checkpoint import load_checkpoint, read_metrics, read_snapshots
from robustness.jobs import OPTIONS

MIB = 2**20
EPOCHS = 2
"""Of the run that is there."""


@dataclass(frozen=True)
class Limit:
    """What a command may not have."""

    set: Callable[[Path], None] = lambda folder: None
    """Called in the command's process, before it is one."""
    disk: Callable[[Path, bool], None] | None = None
    """Puts the folder on a disk of its own, with True, and limits that disk, with False: for those who may mount."""
    before: Sequence[str] = ()
    """Words before the command."""
    options: Sequence[str] = ()
    """Words after it."""
    python: Sequence[str] = ()
    """Python's own."""
    goes_on: bool | None = None
    """Whether the command must go through; None where either will do."""


def most(kind: int, value: int) -> Callable[[Path], None]:
    """At most so much of a kind of resource."""
    return lambda folder: resource.setrlimit(kind, (value, value))


def _full(folder: Path, fresh: bool) -> None:
    """A disk of 4 MiB, and what is left of it taken."""
    if fresh:
        _mount("-t", "tmpfs", "-o", "size=4m", "none", folder)
        return
    with suppress(OSError), (folder / "fill").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def _read_only(folder: Path, fresh: bool) -> None:
    """A disk that becomes one that cannot be written."""
    _mount(*(("-t", "tmpfs", "-o", "size=64m", "none") if fresh else ("-o", "remount,ro")), folder)


def _mount(*words: object) -> None:
    subprocess.run(["mount", *map(str, words)], check=True)


LIMITS = {
    "64 file handles": Limit(most(resource.RLIMIT_NOFILE, 64), options=["--data.workers=2"], goes_on=True),
    "2 GiB of memory": Limit(most(resource.RLIMIT_DATA, 2048 * MIB), goes_on=True),
    "files of 20 kB at most": Limit(most(resource.RLIMIT_FSIZE, 20_000), goes_on=False),
    "a full disk": Limit(disk=_full, goes_on=False),
    "a read-only disk": Limit(disk=_read_only, goes_on=False),
    "a clock 400 days back": Limit(before=["faketime", "-f", "-400d"], goes_on=True),
    "warnings are errors": Limit(python=["-W", "error"], options=["--name=other"], goes_on=True),
}
"""By name."""


def attack(folder: Path, names: Sequence[str] = tuple(LIMITS)) -> dict[str, dict[str, int]]:
    """Ask a run to go on under each limit, and count what is wrong; `untried` where this machine cannot set one."""
    found = {}
    for name in names:
        limit = LIMITS[name]
        if (limit.before and not shutil.which(limit.before[0])) or (limit.disk and os.geteuid()):
            found[name] = {"untried": 1}
            continue
        place = folder / name.replace(" ", "-")
        place.mkdir(parents=True)
        if limit.disk:
            limit.disk(place, True)
        try:
            found[name] = _under(place, limit)
        finally:
            if limit.disk:
                subprocess.run(["umount", str(place)], check=True)
    return found


def _under(folder: Path, limit: Limit) -> dict[str, int]:
    """What is wrong with a run that was asked to go on under a limit."""
    _check(train(folder, EPOCHS))
    if limit.disk:
        limit.disk(folder, False)
    done = train(folder, EPOCHS + 1, limit)
    lines = [line for line in done.stderr.splitlines() if line.startswith("aft-lens train: ")]
    words = done.returncode == 2 and len(lines) == 1
    wrong = {"no words": int("Traceback" in done.stderr or not (words or done.returncode == 0))}
    wrong["otherwise"] = int(limit.goes_on is not None and limit.goes_on != (done.returncode == 0))
    if any(wrong.values()):
        print(done.stderr[-2000:])
    if limit.disk is _read_only:
        _mount("-o", "remount,rw", folder)
    (folder / "fill").unlink(missing_ok=True)
    wrong["lost"] = int(epochs(folder) < EPOCHS)
    _check(train(folder, EPOCHS + 2))
    return wrong | {"lost": wrong["lost"] + (epochs(folder) != EPOCHS + 2), "goes on": int(done.returncode == 0)}


def train(folder: Path, epochs: int, limit: Limit | None = None) -> subprocess.CompletedProcess[str]:
    """The run to so many epochs, under a limit."""
    limit = limit or Limit()
    words = ["train", *OPTIONS, f"--trainer.epochs={epochs}", "--name=run", f"--out={folder}", *limit.options]
    resume = ["--resume"] if (folder / "run").exists() and "--name=other" not in words else []
    return subprocess.run(
        [*limit.before, sys.executable, *limit.python, "-m", "app.cli", *words, *resume], text=True,
        capture_output=True, errors="replace", preexec_fn=lambda: limit.set(folder),
    )  # fmt: skip


def _check(done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode:
        raise RuntimeError(f"without a limit it ended with {done.returncode}: {done.stderr[-2000:]}")


def epochs(folder: Path) -> int:
    """Epochs of the run, all of it being read."""
    load_checkpoint(folder / "run")
    read_snapshots(folder / "run")
    return len(read_metrics(folder / "run"))
