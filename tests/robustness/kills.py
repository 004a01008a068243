"""Kill -9 at random moments of long jobs: nothing that was finished is lost, all that is there can be read, and the end
is that of a job without a break, bit for bit.

A round starts a job, kills it after a random time, and goes on with the same command until it has ended.
"""

import multiprocessing
import os
import random
import shutil
import sys
import time
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from robustness import jobs

CONTEXT = multiprocessing.get_context("forkserver")
PATIENCE = 120.0
"""Seconds after which a job that should have ended counts as one that hangs."""


def attack(kills: int, folder: Path, seed: int = 0, names: tuple[str, ...] = tuple(jobs.JOBS)) -> dict[str, Any]:
    """Kill each of the jobs so often, and count outcomes by job; `ended alike` are ends that came after kills."""
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)  # the server looks nowhere else
    CONTEXT.set_forkserver_preload(["robustness.jobs"])
    return {name: _attack(name, kills, folder / str(i), random.Random(seed + i)) for i, name in enumerate(names)}


def _attack(name: str, kills: int, folder: Path, draw: random.Random) -> dict[str, int]:
    job, whole, broken = jobs.JOBS[name], folder / "whole", folder / "broken"
    found = {"kills": 0, "while saving": 0, "ended alike": 0, "other end": 0, "lost": 0, "unreadable": 0, "failed": 0}
    length = 0.0
    for _ in range(2):  # the first one imports what only it needs
        shutil.rmtree(whole, ignore_errors=True)
        process, begun = _start(name, whole), time.monotonic()
        _end(process, whole)
        length = time.monotonic() - begun
    expected, kept, ended = job.outcome(whole), 0, False
    while found["kills"] < kills or not ended:
        before = _writing(broken)
        process, begun = _start(name, broken), time.monotonic()
        if found["kills"] < kills:
            process.join(draw.uniform(0, length))
            if job.saving:
                while process.exitcode is None and _writing(broken) <= before:
                    time.sleep(0.0005)
                process.join(draw.uniform(0, 0.02))
            process.kill()
            process.join()
        else:
            process.join(PATIENCE)
        ended = process.exitcode == 0
        if ended:  # the machine may be busier or quieter than before; what is left of a job is shorter
            length = max(time.monotonic() - begun, length / 2)
        if process.exitcode is None or process.exitcode > 0:
            found["failed"] += 1  # in words or in none, or it hangs
            print(f"{name}: {_said(broken)[-2000:]}")
            process.kill()
            process.join()
            ended = True
        else:
            found["kills"] += process.exitcode < 0
            found["while saving"] += process.exitcode < 0 and not _writing(broken) <= before
            try:
                earlier, kept = kept, job.kept(broken)
                found["lost"] += kept < earlier
                if ended:
                    found["ended alike" if job.outcome(broken) == expected else "other end"] += 1
            except (ValueError, OSError) as error:
                found["unreadable"] += 1
                print(f"{name}: {error}")
        if ended:
            shutil.rmtree(broken, ignore_errors=True)
            kept = 0
    shutil.rmtree(broken, ignore_errors=True)
    return found


def _start(name: str, folder: Path) -> BaseProcess:
    folder.mkdir(parents=True, exist_ok=True)
    process = CONTEXT.Process(target=_work, args=(name, folder))
    process.start()
    return process


def _work(name: str, folder: Path) -> None:
    """In a process of its own: the job, what it says going to a file beside its folder."""
    file = os.open(folder.with_name(f"{folder.name}.txt"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    sys.exit(jobs.work(name, folder))


def _end(process: BaseProcess, folder: Path) -> None:
    process.join(PATIENCE)
    if process.exitcode != 0:
        raise RuntimeError(f"without a kill it ended with {process.exitcode}: {_said(folder)[-2000:]}")


def _writing(folder: Path) -> set[tuple[Path, int]]:
    """What is being written in a folder, or was left there by a kill, each with the time by which they differ."""
    found = set()
    for parent, folders, files in os.walk(folder):  # which passes over what is gone by now
        for path in (Path(parent, name) for name in (*folders, *files) if name.endswith(".writing")):
            with suppress(FileNotFoundError):
                found.add((path, path.stat().st_ctime_ns))
    return found


def _said(folder: Path) -> str:
    return folder.with_name(f"{folder.name}.txt").read_text(errors="replace")
