"""Many pieces of long work, several at a time: a finished one is kept under its fingerprint and never done again.

A cell runs in a process of its own kind, which takes one after another; one that dies takes its cell alone with it, and
all end with the command, however that ends.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from analyses.processes import end_with
from analyses.provenance import visible_gpu
from analyses.store import Store

RESERVE = 1.15
"""Share of its expected time that a cell must have left to be started."""


@dataclass(frozen=True)
class Cell:
    """A piece of work with a name."""

    name: str
    """Of its row in the store."""
    mark: str
    """Fingerprint of everything that the row depends on."""
    work: Callable[[], Any]
    """Does it and returns the row; it is sent to another process, so a function of a module, or a partial of one."""
    kind: str = ""
    """Cells of one kind take equally long for each unit of `size`."""
    size: float = 1.0
    """How much work it is, e.g. epochs."""
    after: str | None = None
    """Name of a cell whose work this one needs."""


@dataclass
class Outcome:
    """What came of a call: rows by name, what failed and why, and what is left for another time."""

    rows: dict[str, Any] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)

    def check(self) -> None:
        """ValueError, with every reason, if a cell failed."""
        if self.failed:
            raise ValueError("runs failed:\n  " + "\n  ".join(f"{name}: {why}" for name, why in self.failed.items()))


def run_cells(
    cells: Sequence[Cell],
    store: Store,
    *,
    workers: int = 1,
    budget: float = 0.0,
    life: int = 0,
    done: Callable[[Cell, Any], None] = lambda cell, row: None,
) -> Outcome:
    """Do every cell that the store has not, the first ones first, and keep each row at once.

    `workers` processes share the work, spread over all GPUs; 0 does it in this process. After `budget` seconds (0: no
    limit) running cells are ended, and none is started that cannot be expected to end by then, judged by the slowest
    of its kind. A process is replaced after `life` cells (0: never), for work that leaves memory behind, as CUDA graphs
    do.
    `done` is called after each new row. Raises ValueError on fewer than 0 workers or seconds.
    """
    if workers < 0 or budget < 0:
        raise ValueError(f"workers and budget must be 0 or more, got {workers} and {budget}")
    outcome = Outcome()
    waiting = []
    for each in cells:
        row = store.get(each.name, each.mark)
        if row is None:
            waiting.append(each)
        else:
            outcome.rows[each.name] = row
    queue = _Queue(waiting, outcome, time.monotonic() + budget if budget else float("inf"), store, done)
    if workers:
        _share(queue, min(workers, len(waiting)), life)
    else:
        while (cell := queue.take()) is not None:
            try:
                queue.finish(cell, cell.work(), "")
            except Exception as error:  # one that fails must not keep the others from being done
                queue.finish(cell, None, f"{type(error).__name__}: {error}")
    outcome.left += [cell.name for cell in queue.waiting]
    return outcome


@dataclass
class _Queue:
    """What waits, and what is known of how long it takes."""

    waiting: list[Cell]
    outcome: Outcome
    end: float
    store: Store
    done: Callable[[Cell, Any], None]
    started: dict[str, float] = field(default_factory=dict)
    paces: dict[str, float] = field(default_factory=dict)
    """Seconds a unit of size, of the slowest cell of each kind."""

    def take(self) -> Cell | None:
        """The first that may start and can be expected to end in time; its clock runs from now."""
        for cell in self.waiting:
            pace = self.paces.get(cell.kind, max(self.paces.values(), default=0.0))
            in_time = time.monotonic() + RESERVE * pace * cell.size < self.end
            if in_time and (cell.after is None or cell.after in self.outcome.rows):
                self.waiting.remove(cell)
                self.started[cell.name] = time.monotonic()
                return cell
        return None

    def finish(self, cell: Cell, row: Any, error: str) -> None:
        """Keep what came of a cell."""
        if error:
            self.outcome.failed[cell.name] = error
            return
        pace = (time.monotonic() - self.started[cell.name]) / cell.size
        self.paces[cell.kind] = max(pace, self.paces.get(cell.kind, 0.0))
        self.store.put(cell.name, cell.mark, row)
        self.outcome.rows[cell.name] = self.store.get(cell.name, cell.mark)
        self.done(cell, self.outcome.rows[cell.name])


def _share(queue: _Queue, workers: int, life: int) -> None:
    """Keep processes busy until nothing may start any more or the time is over; none is left behind."""
    context = multiprocessing.get_context("spawn")
    busy: dict[Any, tuple[Any, int, Cell]] = {}  # by our end of the pipe
    idle: list[tuple[Any, Any, int]] = []
    numbers = list(range(workers))
    processes = []
    served: dict[Any, int] = {}  # cells, by our end of the pipe
    try:
        while True:
            while (idle or numbers) and (cell := queue.take()) is not None:
                if not idle:
                    pipe, theirs = context.Pipe()
                    process = context.Process(target=_serve, args=(theirs, visible_gpu(numbers[0])), daemon=True)
                    process.start()
                    theirs.close()
                    processes.append(process)
                    idle.append((process, pipe, numbers.pop(0)))
                process, pipe, number = idle.pop()
                try:
                    pipe.send(cell.work)
                except BrokenPipeError:  # killed while it was idle
                    numbers.append(number)
                    queue.waiting.insert(0, cell)
                    continue
                busy[pipe] = process, number, cell
            if not busy:
                return
            ready = wait(list(busy), timeout=max(0.0, min(queue.end - time.monotonic(), 3600.0)))
            if not ready and time.monotonic() >= queue.end:
                queue.outcome.left += [cell.name for _, _, cell in busy.values()]
                return
            for end in ready:
                process, number, cell = busy.pop(end)
                ours: Any = end  # a connection: nothing else was waited for
                try:
                    row, error = ours.recv()
                    served[ours] = served.get(ours, 0) + 1
                    if served[ours] == life:
                        process.kill()
                        numbers.append(number)
                    else:
                        idle.append((process, ours, number))
                except EOFError:  # killed, or out of memory: another takes its place
                    process.join()
                    row, error = None, f"its process ended with exit code {process.exitcode}"
                    numbers.append(number)
                queue.finish(cell, row, error)
    finally:
        for process in processes:
            process.kill()
            process.join()


def _serve(pipe: Connection, gpu: str | None) -> None:
    """Do what comes through the pipe until it closes, on one GPU; end with the process that sends it, even killed."""
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    sender = multiprocessing.parent_process()
    if sender is not None and sender.pid is not None:
        end_with(sender.pid, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the sender's, who ends this one
    while True:
        try:
            work = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((work(), ""))
        except Exception as error:  # whatever work raises is reported with its name
            pipe.send((None, f"{type(error).__name__}: {error}"))
