"""Jobs: what takes more than two seconds, in a process each, shared by whoever asks for the same."""

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aft_lens
from aft_lens.errors import InputError
from analyses.store import fingerprint
from app.back import shelf
from app.back.link import GONE, LINK, Fork, Link
from app.held import size_of

MOST_AT_ONCE = max(2, (os.cpu_count() or 2) // 2)
"""Jobs of one visitor that run at one time; the others wait, and pages go on."""
MOST_IN_ALL = 3 * MOST_AT_ONCE
"""Processes of jobs at one time, whoever asks: memory bounds them. Below it nobody waits for another visitor's job."""
MOST_HELD = 64 * 2**20
"""Bytes of results of jobs that have ended which are held here; all of them are on disk."""
MOST_ASKED = 256 * 2**20
"""Bytes of what jobs that wait or run were asked with: uploads are among it."""
PATIENCE = 20.0
"""Seconds without anybody who asks after which a job ends."""
KINDS = {
    "attention": "attention", "attend": "attention", "bias": "attention", "evaluate": "pruning", "curve": "pruning",
    "prune": "pruning", "knockout": "knockouts", "costs": "knockouts", "latency": "pairs", "locality": "pairs",
    "match": "pairs", "attribution": "single", "show": "single", "explain": "single", "learned": "single",
    "transfer": "single", "qk": "single", "attributions": "single", "field": "pairs", "keys": "attention",
    "survey": "survey", "completions": "decoding", "decoder_biases": "decoding",
}  # fmt: skip
"""Each kind, which is a function's name, and its module in `app.back.work`."""
WAITING, RUNNING, DONE, FAILED, CANCELLED = "waiting", "running", "done", "failed", "cancelled"


@dataclass
class Job:
    """A piece of work and what is known of it."""

    kind: str
    """Of `KINDS`."""
    arguments: Mapping[str, Any]
    title: str
    """What it does, for people."""
    mark: str
    state: str = WAITING
    share: float = 0.0
    """How much is done, 0 to 1."""
    said: str = ""
    """What it does now, or why it failed."""
    result: dict[str, Any] | None = None
    """What came of it, or what there is so far."""
    began: float = field(default_factory=time.monotonic)
    asked: float = field(default_factory=time.monotonic)
    visitors: set[str] = field(default_factory=set)
    fork: Fork | None = None
    working: bool = False
    """Whether its process is there: of one that is done too, while it draws its files."""

    @property
    def place(self) -> Path:
        """Where its result is kept."""
        return shelf.path_of(self.kind, self.mark)

    @property
    def active(self) -> bool:
        """Whether it waits or runs."""
        return self.state in (WAITING, RUNNING)

    @property
    def seconds(self) -> float:
        """Since it was asked for."""
        return time.monotonic() - self.began


class Jobs:
    """All jobs of a server. Threads may share it."""

    def __init__(self, link: Link = LINK, is_there: Callable[[str], bool] = lambda visitor: True) -> None:
        self.link, self.is_there = link, is_there
        self._lock = threading.RLock()
        self._jobs: dict[tuple[str, str], Job] = {}
        self._reaper: threading.Thread | None = None

    def ask(
        self, kind: str, title: str, arguments: Mapping[str, Any], *, visitor: str = "", again: bool = False,
        start: bool = True,
    ) -> Job | None:  # fmt: skip
        """The job of these arguments: one that runs, one whose result is kept, or, with `start`, a new one.

        `again` starts one that has ended once more. Raises InputError where those that wait were asked with more than
        `MOST_ASKED`.
        """
        mark = fingerprint(kind, dict(arguments), aft_lens.__version__)
        with self._lock:
            job = self._jobs.get((kind, mark))
            if job is not None and not (again and not job.active):
                job.asked = time.monotonic()
                job.visitors.add(visitor)
                if job.state != CANCELLED or not start:
                    return job
            kept = None if again else shelf.get(shelf.path_of(kind, mark))
            if kept is None and not start:
                return None
            job = Job(kind, dict(arguments), title, mark, visitors={visitor})
            if kept is None:
                self._check_room(job)
            self._forget()
            self._jobs[kind, mark] = job
            if kept is not None:
                job.state, job.share, job.result = DONE, 1.0, kept
            else:
                self._start_waiting()
                self._watch()
            return job

    def cancel(self, job: Job) -> None:
        """End a job; what it had so far is kept on its page."""
        with self._lock:
            if job.active:
                job.state, job.said, job.working = CANCELLED, "cancelled", False
                self._kill(job)
                self._start_waiting()

    def of(self, visitor: str) -> list[Job]:
        """What a visitor waits for."""
        with self._lock:
            return [job for job in self._jobs.values() if job.active and visitor in job.visitors]

    def stop(self) -> None:
        """End all jobs."""
        with self._lock:
            for job in list(self._jobs.values()):
                self.cancel(job)

    def _check_room(self, new: Job) -> None:
        """Raise InputError where a job would be asked for with more than there is room for."""
        asked = sum(size_of(job.arguments) for job in self._jobs.values() if job.active)
        if asked + size_of(new.arguments) > MOST_ASKED:
            raise InputError(
                "too many visitors wait for jobs of uploaded images; ask again when some of them have ended"
            )

    def _forget(self) -> None:
        """Results are on disk: of those that ended the latest are held, up to `MOST_HELD`."""
        room = MOST_HELD
        for key, job in reversed(list(self._jobs.items())):
            if not job.active and not job.working:
                room -= size_of(job.result) + size_of(job.arguments)
                if room < 0:
                    del self._jobs[key]

    def _start_waiting(self) -> None:
        """Start the jobs that wait, as many as may run of each visitor's."""
        for job in self._jobs.values():
            if sum(one.working for one in self._jobs.values()) >= MOST_IN_ALL:
                return
            running = [one for one in self._jobs.values() if one.state == RUNNING]
            fewest = min(sum(visitor in one.visitors for one in running) for visitor in job.visitors)
            if job.state == WAITING and fewest < MOST_AT_ONCE:
                job.state, job.working = RUNNING, True
                threading.Thread(target=self._run, args=(job,), daemon=True).start()

    def _run(self, job: Job) -> None:
        """Follow a job until it has ended."""
        try:
            job.fork = self.link.fork()
            if job.state != RUNNING:
                self._kill(job)
                return
            job.fork.pipe.send(
                ("job", f"work.{KINDS[job.kind]}:{job.kind}", {**job.arguments, "place": str(job.place)})
            )
            while job.state in (RUNNING, DONE):  # files are drawn after the result has come
                kind, value = job.fork.pipe.recv()
                if kind == "told":
                    self._hear(job, value)
                    continue
                with self._lock:
                    if job.state == RUNNING:
                        job.said, job.state = ("", DONE) if kind == "done" else (str(value), FAILED)
                return
        except (EOFError, OSError, InputError):
            with self._lock:
                if job.state == RUNNING:
                    job.state, job.said = FAILED, GONE
        finally:
            if job.fork is not None:
                job.fork.close()
            with self._lock:
                job.working = False
                self._start_waiting()

    def _hear(self, job: Job, told: tuple[float, str, dict[str, Any] | None]) -> None:
        """Note how far a job has come, and what it has so far."""
        share, said, result = told
        job.share, job.said = max(job.share, min(1.0, share)), said
        job.result = job.result if result is None else result
        if share >= 1.0 and result is not None:
            with self._lock:
                job.state, job.said = DONE, ""
                self._start_waiting()

    def _kill(self, job: Job) -> None:
        if job.fork is not None:
            with suppress(ProcessLookupError):
                os.kill(job.fork.pid, signal.SIGKILL)

    def _watch(self) -> None:
        """Keep a thread that ends jobs for which nobody waits."""
        if self._reaper is None or not self._reaper.is_alive():
            self._reaper = threading.Thread(target=self._reap, daemon=True)
            self._reaper.start()

    def _reap(self) -> None:
        while True:
            time.sleep(2.0)
            with self._lock:
                active = [job for job in self._jobs.values() if job.active]
                if not active:
                    self._reaper = None
                    return
                for job in active:
                    there = any(map(self.is_there, job.visitors))
                    if there:
                        job.asked = time.monotonic()
                    elif time.monotonic() - job.asked > PATIENCE:
                        self.cancel(job)
                        job.said = "ended, as nobody waited for it"


JOBS = Jobs()
