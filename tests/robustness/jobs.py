"""Long jobs in small, as a user runs them again after a kill: what they write, and what must be alike at the end.

Imported by a server of processes, so that a round costs no imports and kills fall into the work.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from aft_lens.checkpoint import SHIPPED, list_checkpoints, load_checkpoint, read_config, read_metrics, read_snapshots
from aft_lens.files import recovered
from aft_lens.training.run import remove_run
from analyses.cells import HERE
from analyses.pruning.evidence.plan import Plan
from analyses.pruning.evidence.sweep import run_sweep
from analyses.study import Study
from analyses.study.train import read_runs
from analyses.study.train import run as run_study
from app.cli import main

OPTIONS = (
    "--recipe=digits-single", "--model.depth=1", "--model.embed_dim=16", "--trainer.accelerator=cpu",
    "--trainer.limit_batches=2",
)  # fmt: skip
MEASURED = ("seconds", "images_per_second", "started", "resumed", "finished", "latencies", "peak_memory_mib")
"""Fields that the clock decides, or how often a job was run."""


@dataclass(frozen=True)
class Job:
    """Work that writes into a folder."""

    run: Callable[[Path], int]
    """Begin, or go on, as the same command does; the exit status."""
    kept: Callable[[Path], int]
    """How much of it is finished, everything that is there having been read; raises where something cannot be."""
    outcome: Callable[[Path], Any]
    """What must be alike, bit for bit, with and without kills."""
    saving: bool = False
    """Kills wait until it saves."""


def _train(folder: Path, epochs: int, workers: int) -> int:
    """A run; with `--resume` if it has a whole epoch, else anew, as the command asks for."""
    whole = recovered(folder / "run").exists()
    if not whole:
        remove_run(folder / "run")
    words = ["train", *OPTIONS, f"--trainer.epochs={epochs}", f"--data.workers={workers}", "--name=run"]
    return main([*words, f"--out={folder}", *(["--resume"] if whole else [])])


def _epochs(folder: Path) -> int:
    """Whole epochs of the run, every file of it being read."""
    if not recovered(folder / "run").exists():
        return 0
    load_checkpoint(folder / "run")
    read_snapshots(folder / "run")
    return len(read_metrics(folder / "run"))


def _weights(folder: Path, name: str = "run") -> dict[str, Any]:
    """Weights as lists, and the metrics but for speed."""
    state = load_checkpoint(folder / name).model.state_dict()
    rows = [{key: row[key] for key in row if key not in MEASURED} for row in read_metrics(folder / name)]
    return {"weights": {key: tensor.tolist() for key, tensor in state.items()}, "rows": rows}


def _prune(folder: Path) -> int:
    """A pruned checkpoint; one that is whole is not made again."""
    if (folder / "out/model").exists():
        return 0
    words = ["prune", str(SHIPPED / "digits-single"), "--keep=1", "--images=32", "--batch_sizes=[1]"]
    return main([*words, "--criterion=taylor", "--calibration=32", f"--out={folder / 'out'}"])


def _read_all(folder: Path) -> int:
    """Files and checkpoints that are there, all read."""
    files = [file for file in folder.rglob("*.json") if not file.name.startswith(".")]
    for file in files:
        json.loads(file.read_text(encoding="utf-8"))
    found = list_checkpoints(folder)
    for path in found:
        load_checkpoint(path)
        read_config(path)
    return len(files) + len(found)


def _sweep(folder: Path) -> int:
    parents = (str(SHIPPED / "digits-single"), str(SHIPPED / "digits-entropy"))
    plan = Plan(parents, ("magnitude", "random"), keeps=(4, 1), images=32, calibration=32, save_models=True)
    run_sweep(plan, folder / "sweep", times="none")
    return 0


def _rungs(folder: Path) -> Any:
    """Every rung's numbers, and the weights of every model."""
    rungs = json.loads((folder / "sweep/ladder.json").read_text(encoding="utf-8"))["rungs"]
    states = {path.name: _weights(path.parent, path.name) for path in list_checkpoints(folder / "sweep")}
    return _untimed(rungs), states


def _of_study(folder: Path) -> Study:
    fields: dict[str, Any] = {"family": "digits", "epochs": 3, "accelerator": "cpu", "tuned": False, "batch_size": 8}
    return Study(**fields, seeds=1, runs=folder / "runs", only=("vit", "conv"), limit_batches=1)


def _study(folder: Path) -> int:
    run_study(_of_study(folder), crew=HERE, out=folder)
    return 0


def _untimed(value: Any) -> Any:
    """A record without what the clock decides."""
    if isinstance(value, dict):
        return {key: _untimed(each) for key, each in value.items() if key not in MEASURED}
    return [_untimed(each) for each in value] if isinstance(value, list) else value


JOBS = {
    "train": Job(lambda folder: _train(folder, 8, 0), _epochs, _weights),
    "train with a loader process": Job(lambda folder: _train(folder, 4, 1), _epochs, _weights),
    "save": Job(lambda folder: _train(folder, 12, 0), _epochs, _weights, saving=True),
    "prune": Job(_prune, _read_all, lambda folder: _weights(folder / "out", "model")["weights"]),
    "sweep": Job(_sweep, _read_all, _rungs),
    "study": Job(
        _study,
        lambda folder: len(read_runs(_of_study(folder))),
        lambda folder: _untimed([each.record() for each in read_runs(_of_study(folder))]),
    ),
}
"""By name."""


def work(name: str, folder: Path) -> int:
    """Do a job in this process, one thread, so that two at once do not wait for each other."""
    torch.set_num_threads(1)
    return JOBS[name].run(folder)
