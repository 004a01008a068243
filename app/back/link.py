"""The server's end: it starts the process that forks, and asks forks for reads and jobs."""

import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from aft_lens.errors import InputError
from app.back.memory import told

MOST_READERS = 2
"""Forks that answer pages: one that reads a large model does not keep another visitor waiting."""
THREADS = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")}
"""A thread a fork: several processes share the cores, and more threads would wait for one another."""
YOUNG = 20.0
"""Seconds after its start in which a fork is kept that was made before all was imported: the first page asks often."""
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
"""Pages fetch nothing."""
MOST_KEPT = 2**30
"""Bytes by which a fork that reads may have grown when it has answered; one that is larger ends, and all it holds."""
GONE = (
    "the process that computes has ended, perhaps for want of memory; ask again, or choose less (fewer images, a "
    "smaller model)"
)


class Defect(RuntimeError):
    """What a fork could not answer in words; it has kept the traceback, and the message says where."""


class Fork:
    """A process to ask; `pid` is its own, `whole` says that all was imported before it was forked."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe
        try:
            self.pid, self.whole = pipe.recv()
        except EOFError as error:
            raise InputError(GONE) from error
        self._first = self._memory()

    def grown(self) -> int:
        """Bytes by which its own memory has grown, as the system has measured it; 0 where that is not told."""
        return self._memory() - self._first

    def _memory(self) -> int:
        return told(self.pid, "RssAnon") or 0

    def ask(self, name: str, arguments: dict[str, Any]) -> Any:
        """What a function of `app.back` returns; InputError with its words, or Defect."""
        try:
            self.pipe.send(("read", name, arguments))
            return answered(self.pipe.recv())
        except (EOFError, OSError) as error:
            raise InputError(GONE) from error

    def close(self) -> None:
        """Let it end."""
        with suppress(OSError):
            self.pipe.close()


def answered(reply: tuple[str, Any]) -> Any:
    """The value of a reply; raises InputError with the words of a refusal, and Defect."""
    kind, value = reply
    if kind == "done":
        return value
    raise InputError(value) if kind == "refused" else Defect(value)


class Link:
    """The process that forks, and the forks that read. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: list[Fork] = []
        self._places = threading.BoundedSemaphore(MOST_READERS)
        self._channel: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._began = 0.0

    def start(self) -> None:
        """Start the process that forks, if it does not run; it imports while others go on."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                return
            self._free.clear()
            ours, theirs = socket.socketpair()
            call = [sys.executable, "-P", "-m", "app.back.zygote", str(theirs.fileno())]
            environment = {**os.environ, **THREADS, **OFFLINE, "PYTHONWARNINGS": "ignore"}
            self._process = subprocess.Popen(call, env=environment, pass_fds=[theirs.fileno()], start_new_session=True)
            theirs.close()
            self._channel, self._began = ours, time.monotonic()

    def fork(self) -> Fork:
        """A new fork; waits for the imports of the first one."""
        self.start()
        ours, theirs = socket.socketpair()
        with self._lock:
            assert self._channel is not None
            with suppress(OSError):  # it has ended: the fork says so
                socket.send_fds(self._channel, [b"."], [theirs.fileno()])
        theirs.close()
        return Fork(Connection(ours.detach()))

    def read(self, name: str, **arguments: Any) -> Any:
        """What a function of `app.back` returns, answered by one of the forks that read."""
        with self._places:
            with self._lock:
                fork = self._free.pop() if self._free else None
            fork = fork or self.fork()
            try:
                value = fork.ask(name, arguments)
            except InputError as error:
                if str(error) == GONE:
                    fork.close()
                else:
                    self._back(fork)
                raise
            except Defect:
                self._back(fork)
                raise
            self._back(fork)
            return value

    def _back(self, fork: Fork) -> None:
        """Keep a fork for the next read, unless it has grown large or would go on importing what the others share."""
        late = not fork.whole and time.monotonic() - self._began > YOUNG
        if late or fork.grown() > MOST_KEPT:
            fork.close()
            return
        with self._lock:
            self._free.append(fork)

    def processes(self) -> list[int]:
        """Ids of the process that forks and of the idle forks that read, to measure."""
        with self._lock:
            first = [] if self._process is None else [self._process.pid]
            return first + [fork.pid for fork in self._free]

    def stop(self) -> None:
        """Close the channel, upon which all of them end."""
        with self._lock:
            for fork in self._free:
                fork.close()
            self._free.clear()
            if self._channel is not None:
                self._channel.close()
            if self._process is not None:
                try:
                    self._process.wait(10)
                except subprocess.TimeoutExpired:  # in the midst of an import: it looks at the channel after that
                    self._process.kill()
                    self._process.wait()
            self._process = self._channel = None


LINK = Link()
