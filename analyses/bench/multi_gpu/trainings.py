"""Runs of `aft-lens train` in processes of their own, on some of a machine's GPUs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from aft_lens.checkpoint import METRICS, read_metrics
from aft_lens.training.run import remove_run
from analyses.provenance import environment, visible_gpu
from analyses.store import Store, fingerprint

Started = tuple["subprocess.Popen[bytes]", Path]
"""A run and its log."""
STOPPING = 120.0
"""Seconds that a run has to end after it was told to."""


class Trainings:
    """Runs below a folder; those that have finished there are not started again, what still runs ends on leaving.

    A run has finished with `epochs` rows of metrics, if it was started with the same options on the same hardware
    and versions. `device` is what `environment` describes, cuda or cpu.
    """

    def __init__(self, folder: Path, epochs: int, *, device: str = "cuda") -> None:
        self.folder, self.epochs, self.device = folder, epochs, device
        self._store = Store(folder)
        self._running: list[subprocess.Popen[bytes]] = []
        self._sigterm: Any = signal.SIG_DFL

    def __enter__(self) -> "Trainings":
        """Turn SIGTERM into an exit that ends the runs too."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._sigterm = signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what still runs."""
        for process in self._running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        signal.signal(signal.SIGTERM, self._sigterm)

    def start(self, name: str, count: int, options: tuple[str, ...], place: int = 0) -> Started:
        """Start a run from its beginning on GPUs place * count and the `count` - 1 after it, counted round."""
        remove_run(self.folder / name)
        identity = self._identity(count, options)
        self._store.put(name, fingerprint(identity), identity)
        return self._launch(name, count, options, place)

    def start_missing(self, name: str, count: int, options: tuple[str, ...], place: int = 0) -> Started | None:
        """`start` a run, or None if it has finished before."""
        same = self._store.get(name, fingerprint(self._identity(count, options)))
        if same is not None and self.epochs_written(name) == self.epochs:
            print(f"{self.folder / name} finished before; remove {self.folder} to measure anew", flush=True)
            return None
        return self.start(name, count, options, place)

    def resume(self, name: str, options: tuple[str, ...]) -> Started:
        """Go on with a run on one GPU."""
        return self._launch(name, 1, (*options, "--resume=true"), 0)

    def stop_after(self, name: str, epochs: int, started: Started) -> int:
        """End a run by SIGTERM once it has `epochs` epochs, and return how many it then has.

        Raises RuntimeError if it came to its end before.
        """
        process, log = started
        while self.epochs_written(name) < epochs and process.poll() is None:
            time.sleep(0.1)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        if process.wait(STOPPING) == 0 or self.epochs_written(name) < epochs:
            raise RuntimeError(f"{name} ended before it was stopped:\n{log.read_text()[-2000:]}")
        return self.epochs_written(name)

    def epochs_written(self, name: str) -> int:
        """Epochs that a run has written."""
        path = self.folder / name
        return len(read_metrics(path)) if (path / METRICS).is_file() else 0

    def _identity(self, count: int, options: tuple[str, ...]) -> dict[str, Any]:
        """What a finished run must agree on to stand for one that is asked for."""
        return {"options": [*options], "count": count, **environment(self.device)}

    def _launch(self, name: str, count: int, options: tuple[str, ...], place: int) -> Started:
        """Start a process group."""
        command = [
            sys.executable, "-m", "app.cli", "train", *options, f"--name={name}", f"--out={self.folder}",
            f"--trainer.accelerator={'gpu' if self.device == 'cuda' else 'cpu'}", f"--trainer.devices={count}",
            f"--trainer.strategy={'ddp' if count > 1 else 'auto'}",
        ]  # fmt: skip
        own = dict(os.environ)
        if self.device == "cuda":
            own["CUDA_VISIBLE_DEVICES"] = ",".join(str(visible_gpu(place * count + i)) for i in range(count))
        log = self.folder / f"{name}.log"
        with log.open("ab") as sink:
            process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True, env=own)
        self._running.append(process)
        return process, log


def wait(*started: Started | None) -> None:
    """Wait for runs; RuntimeError with the end of its log if one failed."""
    for process, log in filter(None, started):
        if process.wait():
            raise RuntimeError(f"{log.stem} failed:\n{log.read_text()[-3000:]}")
