"""Many pieces of long work, several at a time: a finished one is kept under its fingerprint and never done again.

A cell runs in a process of its own kind, which takes one after another; one that dies takes its cell alone with it, and
all end with the command, however that ends. With an address of Ray the processes are actors on a cluster's machines
(`analyses.ray_cells`); this process alone writes rows.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from aft_lens.errors import Stopped
from aft_lens.later import later
from aft_lens.progress import PATIENCE
from analyses.processes import end_with
from analyses.provenance import visible_gpu
from analyses.store import Store

if TYPE_CHECKING:
    from analyses import ray_cells
else:
    ray_cells = later("analyses.ray_cells")

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
    keeps: bool = False
    """Whether a process of this machine that did it goes on with cells of its kind: what it made serves them again."""


@dataclass(frozen=True)
class Crew:
    """Who does the work, and for how long. Raises ValueError on fewer than 0 workers, seconds or GPUs."""

    workers: int = 1
    """Processes of this machine that share the work, spread over all GPUs; 0 does it in this one. With `ray`, actors; 0
    is one for each processor of the cluster."""
    ray: str = ""
    """Address of a Ray cluster whose machines share the work, as `ray.init` takes it ("auto", "local", HOST:PORT);
    empty for this machine."""
    gpus: float = 0.0
    """Of each of Ray's workers, a fraction too; of each process of this machine, as many as it is to see (0: one)."""
    budget: float = 0.0
    """Seconds after which running cells are ended, and before which none is started that cannot be expected to end by
    then, judged by the slowest of its kind; 0 is no limit."""
    life: int = 0
    """Cells after which a worker is replaced, for work that leaves memory behind, as CUDA graphs do; 0: never."""

    def __post_init__(self) -> None:
        if min(self.workers, self.budget, self.gpus, self.life) < 0:
            raise ValueError(
                f"workers, budget, gpus and life must be 0 or more, got {self.workers}, {self.budget:g}, {self.gpus:g} "
                f"and {self.life}"
            )

    @classmethod
    def of(cls, workers: int | None, ray: str, gpus: float, budget: float) -> "Crew":
        """As commands say it, whose `workers` are None if left out: one process, or a cluster's every processor."""
        return cls((0 if ray else 1) if workers is None else workers, ray, gpus, budget)


HERE = Crew(workers=0)
"""This process alone."""


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

    def check_whole(self, words: str, store: Store) -> None:
        """As `check`; Stopped, with what to do, where the time was over before all was done."""
        self.check()
        if self.left:
            raise Stopped(
                f"the time is over with {len(self.left)} of {len(self.left) + len(self.rows)} {words} left; what was "
                f"measured is kept in {store.folder}: run the same command again to go on"
            )


def run_cells(
    cells: Sequence[Cell],
    store: Store,
    crew: Crew = Crew(),
    *,
    done: Callable[[Cell, Any], None] = lambda cell, row: None,
    words: str = "",
) -> Outcome:
    """Do every cell that the store has not, the first ones first but for `Cell.keeps`, and keep each row at once.

    `done` hears of each.

    With `words` a bar says how far it is. On a cluster the cell of a worker that is lost is done again by another.
    Raises ValueError where there is no cluster at the crew's address, or it cannot give what a worker needs.
    """
    outcome = Outcome()
    waiting = []
    for each in cells:
        row = store.get(each.name, each.mark)
        if row is None:
            waiting.append(each)
        else:
            outcome.rows[each.name] = row
    end = time.monotonic() + crew.budget if crew.budget else float("inf")
    with tqdm(total=len(waiting), desc=words, disable=None if words else True, leave=False, delay=PATIENCE) as bar:

        def told(cell: Cell, row: Any) -> None:
            bar.update()
            done(cell, row)

        queue = Queue(waiting, outcome, end, store, told)
        if crew.ray and waiting:
            ray_cells.share(queue, crew)
        elif crew.workers:
            _share(queue, crew)
        else:
            while (cell := queue.take()) is not None:
                try:
                    queue.finish(cell, cell.work(), "")
                except Exception as error:  # one that fails must not keep the others from being done
                    queue.finish(cell, None, f"{type(error).__name__}: {error}")
    outcome.left += [cell.name for cell in queue.waiting]
    return outcome


@dataclass
class Queue:
    """What waits, and what is known of how long it takes."""

    waiting: list[Cell]
    outcome: Outcome
    end: float
    store: Store
    done: Callable[[Cell, Any], None]
    started: dict[str, float] = field(default_factory=dict)
    paces: dict[str, float] = field(default_factory=dict)
    """Seconds a unit of size, of the slowest cell of each kind."""

    def take(self, after: Cell | None = None) -> Cell | None:
        """The first that may start and can be expected to end in time, by a process that did `after` of that kind first
        if it `keeps`; its clock runs from now."""
        order = self.waiting
        if after is not None and after.keeps:
            order = sorted(order, key=lambda each: each.kind != after.kind)
        for cell in order:
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


def _share(queue: Queue, crew: Crew) -> None:
    """Keep processes busy until nothing may start any more or the time is over; none is left behind."""
    context = multiprocessing.get_context("spawn")
    busy: dict[Any, tuple[Any, int, Cell]] = {}  # by our end of the pipe
    idle: list[tuple[Any, Any, int]] = []
    last: dict[int, Cell] = {}  # by a worker's number
    numbers = list(range(min(crew.workers, len(queue.waiting))))
    processes = []
    served: dict[Any, int] = {}  # cells, by our end of the pipe
    try:
        while True:
            while (idle or numbers) and (cell := queue.take(last.get(idle[-1][2] if idle else numbers[0]))):
                if not idle:
                    pipe, theirs = context.Pipe()
                    process = context.Process(target=_serve, args=(theirs, gpus_of(numbers[0], crew)), daemon=True)
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
                last[number] = cell
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
                    if served[ours] == crew.life:
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


def gpus_of(number: int, crew: Crew) -> str:
    """The GPUs of the process of that number, as CUDA_VISIBLE_DEVICES names them; in turn over all, "" without any."""
    count = max(1, int(crew.gpus))
    named = (visible_gpu(number * count + place) for place in range(count))
    return ",".join(dict.fromkeys(gpu for gpu in named if gpu is not None))


def _serve(pipe: Connection, gpus: str) -> None:
    """Do what comes through the pipe until it closes, on some GPUs; end with the process that sends it, even killed."""
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus
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


def share_cores() -> None:
    """In a process of this module, have PyTorch compute on one core; Ray's workers do so already."""
    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)
