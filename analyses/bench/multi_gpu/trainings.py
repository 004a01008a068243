"""Runs of `aft-lens train` as cells, each on some of a machine's GPUs: finished ones are never made again."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from aft_lens.checkpoint import METRICS, read_metrics
from aft_lens.training.run import remove_run
from analyses.cells import Cell, Crew, run_cells
from analyses.processes import end_with
from analyses.provenance import environment
from analyses.store import Store, fingerprint

STOPPING = 120.0
"""Seconds that a run has to end after it was told to."""


@dataclass(frozen=True)
class Training:
    """A run of `aft-lens train`."""

    name: str
    """Of its folder."""
    count: int
    """GPUs."""
    options: tuple[str, ...]


@dataclass(frozen=True)
class Trainings:
    """Runs below a folder. A row is written when one has finished, and stands for it on the same hardware and versions.

    `device` is what `environment` describes, cuda or cpu.
    """

    folder: Path
    device: str = "cuda"

    def run(self, *runs: Training, beside: int = 1) -> list[dict[str, Any]]:
        """Make what has not finished, `beside` at a time, all on as many GPUs; `epochs` and `host_cores` of each.

        Raises ValueError, with the end of its log, where one failed.
        """
        return self._rows({each: partial(trained, each, self.folder, self.device) for each in runs}, beside)

    def broken_off(self, run: Training, epochs: int, after: Training) -> dict[str, Any]:
        """End a run by SIGTERM after some epochs, and go on with it as `after` says; `before` and `epochs` written.

        Raises ValueError where it came to its end before.
        """
        work = partial(broken_off, run, epochs, after, self.folder, self.device)
        return self._rows({run: work}, 1, epochs, after.options)[0]

    def _rows(self, runs: dict[Training, Callable[[], Any]], beside: int, *also: Any) -> list[dict[str, Any]]:
        """Rows of runs of one number of GPUs."""
        store = Store(self.folder)
        cells = []
        for each, work in runs.items():
            mark = fingerprint(each, environment(self.device), *also)
            cells.append(Cell(each.name, mark, work))
            if store.get(each.name, mark) is not None:
                print(f"{self.folder / each.name} finished before; remove {self.folder} to measure anew", flush=True)
        found = run_cells(cells, store, Crew(beside, gpus=max(each.count for each in runs)))
        found.check()
        return [found.rows[each.name] for each in runs]


def trained(run: Training, folder: Path, device: str) -> dict[str, Any]:
    """Train from the beginning: epochs written, and processor time over time."""
    remove_run(folder / run.name)
    before, started = _processor_time(), time.perf_counter()
    _wait(*_launch(run, folder, device))
    used = (_processor_time() - before) / (time.perf_counter() - started)
    return {"epochs": epochs_written(folder / run.name), "host_cores": used}


def broken_off(run: Training, epochs: int, after: Training, folder: Path, device: str) -> dict[str, Any]:
    """Train, stop and go on; see `Trainings.broken_off`."""
    path = folder / run.name
    remove_run(path)
    process, log = _launch(run, folder, device)
    while epochs_written(path) < epochs and process.poll() is None:
        time.sleep(0.1)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
    if process.wait(STOPPING) == 0 or epochs_written(path) < epochs:
        raise RuntimeError(f"{run.name} ended before it was stopped:\n{log.read_text()[-2000:]}")
    before = epochs_written(path)
    _wait(*_launch(Training(run.name, after.count, (*after.options, "--resume=true")), folder, device))
    return {"before": before, "epochs": epochs_written(path)}


def epochs_written(path: Path) -> int:
    """Epochs that a run has written."""
    return len(read_metrics(path)) if (path / METRICS).is_file() else 0


def _launch(run: Training, folder: Path, device: str) -> tuple["subprocess.Popen[bytes]", Path]:
    """A process group that trains on the first GPUs that this process sees, and its log; it ends with this one."""
    command = [
        sys.executable, "-m", "app.cli", "train", *run.options, f"--name={run.name}", f"--out={folder}",
        f"--trainer.accelerator={'gpu' if device == 'cuda' else 'cpu'}", f"--trainer.devices={run.count}",
        f"--trainer.strategy={'ddp' if run.count > 1 else 'auto'}",
    ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{run.name}.log"
    with log.open("ab") as sink:
        # By SIGTERM: the first of several processes tells the others.
        heard = partial(end_with, os.getpid(), signal.SIGTERM)
        process = subprocess.Popen(
            command, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=heard
        )
    return process, log


def _wait(process: "subprocess.Popen[bytes]", log: Path) -> None:
    """RuntimeError with the end of its log if a run failed."""
    if process.wait():
        raise RuntimeError(f"{log.stem} failed:\n{log.read_text()[-3000:]}")


def _processor_time() -> float:
    """Of all processes that this one started and that have ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
