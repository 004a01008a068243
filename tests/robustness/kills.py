"""Kill -9 at random moments of training: no run is lost, and the end is that of a run without a break, bit for bit.

Each round starts a small run, kills it after a random time, and goes on with the same command until it has ended.
"""

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch

from aft_lens.checkpoint import load_checkpoint, read_metrics

OPTIONS = (
    "--recipe=digits-single", "--model.depth=1", "--model.embed_dim=16", "--trainer.epochs=6",
    "--trainer.limit_batches=4", "--trainer.accelerator=cpu", "--data.workers=1",
)  # fmt: skip


def train(folder: Path, *more: str) -> subprocess.Popen[str]:
    """Start the run, or go on with it; the lock of a killed one is gone, so that the next can be waited for."""
    (folder / ".run.lock").unlink(missing_ok=True)
    command = [sys.executable, "-m", "app.cli", "train", *OPTIONS, "--name=run", f"--out={folder}", *more]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def attack(kills: int, folder: Path, seed: int = 0) -> dict[str, int]:
    """Kill runs so often and count outcomes; `ended alike` are runs that came to their end after kills."""
    draw, outcomes = (
        random.Random(seed),
        {"resumed": 0, "anew": 0, "ended alike": 0, "unreadable": 0, "traceback": 0, "other weights": 0},
    )
    whole = train(folder / "whole")
    _until_training(whole, folder / "whole")
    begun = time.monotonic()
    whole.communicate()
    length = time.monotonic() - begun
    expected = load_checkpoint(folder / "whole/run").model.state_dict()
    done, more = 0, ()
    broken = folder / "broken"
    while done < kills:
        process = train(broken, *more)
        _until_training(process, broken)
        try:
            said = process.communicate(timeout=draw.uniform(0, length))[1]
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            done += 1
            if (broken / "run").exists() or (broken / ".run.old").exists():
                outcomes["resumed"] += 1
                more = ("--resume",)
                try:
                    load_checkpoint(broken / "run")
                    read_metrics(broken / "run")
                except (ValueError, OSError):
                    outcomes["unreadable"] += 1
            else:
                outcomes["anew"] += 1
                shutil.rmtree(broken, ignore_errors=True)
            continue
        outcomes["traceback"] += "Traceback" in said
        if process.returncode:
            outcomes["unreadable"] += 1
        else:
            found = load_checkpoint(broken / "run").model.state_dict()
            alike = all(torch.equal(expected[name], found[name]) for name in expected)
            outcomes["ended alike" if alike else "other weights"] += 1
        shutil.rmtree(broken, ignore_errors=True)
        more = ()
    return outcomes


def _until_training(process: subprocess.Popen[str], folder: Path) -> None:
    """Wait while a process loads its libraries, which takes longer than the run: kills are to fall into training."""
    while process.poll() is None and not (folder / ".run.lock").exists():
        time.sleep(0.01)
