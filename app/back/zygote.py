"""A process that has imported what computing needs, and forks itself for each piece of work.

A fork starts in milliseconds and shares what was imported. The server, where many threads run, never forks: it sends
this process one end of a socket, over which it then speaks with the fork alone. Whoever's other end is closed, ends.
"""

import gc
import os
import resource
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

from aft_lens.errors import answer, report_defect
from app.back.memory import told

PRELOADED = ("app.back.listing", "app.back.reads")
"""What the first reads need."""
LATER = (
    "torchvision.transforms.v2", "app.back.work.attention", "plotly.graph_objects", "sklearn.datasets",
    "app.back.names", "app.back.work.pruning",
)  # fmt: skip
"""What other reads and jobs need: imported one by one while nothing is asked for."""
NICE = 10
"""How much a job gives way to pages."""
SHARE = 4
"""A fork is refused more than a part of this machine's memory of one in so many, and says so; the others go on."""
IDLE = 3.0
"""Seconds without a request after which `LATER` is imported: the first page is drawn before."""
OVERDUE = 5.0
"""Seconds after which it is imported though requests come: each would import it for itself again."""


def main() -> None:
    """Import, then fork for each socket that comes; return when the server has closed the channel."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    for name in PRELOADED:
        import_module(name)
    import_module("torch").set_num_threads(1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # forks that have ended leave nothing behind
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's, which closes the channel
    later, patience, due = list(LATER), IDLE, time.monotonic() + OVERDUE
    while True:
        if later and (time.monotonic() > due or not select.select([channel], [], [], patience)[0]):
            import_module(later.pop(0))
            patience, due = 0.0, time.monotonic() + OVERDUE
            continue
        _, ends, _, _ = socket.recv_fds(channel, 1, 1)
        if not ends:
            return
        gc.freeze()  # what forks share stays shared: their collectors would write to each object
        if os.fork() == 0:
            channel.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            bound_memory(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // SHARE)
            _serve(Connection(ends[0]), whole=not later)
            os._exit(0)
        os.close(ends[0])


def bound_memory(most: int) -> None:
    """Have this process be refused more than `most` bytes beyond what it has: it then says so, and others go on."""
    now = told("self", "VmData")
    if now is None:
        return
    with suppress(OSError, ValueError):  # where there is a lower limit
        resource.setrlimit(resource.RLIMIT_DATA, (now + most, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def _serve(pipe: Connection, *, whole: bool) -> None:
    """Do what comes: ("read", function, arguments) many times, or one ("job", function, arguments).

    First it says its id, and whether all is imported: one that was forked before is not kept for long.
    """
    pipe.send((os.getpid(), whole))
    while True:
        try:
            kind, name, arguments = pipe.recv()
        except (EOFError, OSError):
            return
        if kind == "job":
            os.nice(NICE)
            threading.Thread(target=_end_with, args=(pipe,), daemon=True).start()
            _reply(pipe, name, {**arguments, "tell": lambda *told: pipe.send(("told", told))})
            return
        _reply(pipe, name, arguments)


def _end_with(pipe: Connection) -> None:
    """End this process where nobody listens any more: the other end says nothing, so that reading ends when it goes."""
    try:
        pipe.recv()
    except (EOFError, OSError):
        os._exit(1)


def _reply(pipe: Connection, name: str, arguments: dict[str, Any]) -> None:
    """Send what a function returns, or the words of what it raises."""
    try:
        reply = ("done", called(name)(**arguments))
    except Exception as error:  # a border: the other side has the words
        words = answer(error)
        reply = ("refused", words) if words else ("defect", report_defect(error))
    try:
        pipe.send(reply)
    except OSError:  # nobody waits any more
        os._exit(0)


def called(name: str) -> Callable[..., Any]:
    """The function behind module:function, both below this package."""
    module, _, function = name.partition(":")
    return getattr(import_module(f"app.back.{module}"), function)


if __name__ == "__main__":
    main()
