"""The last border of a command: what it raises becomes a line and an exit status. Light: every command imports it."""

import io
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, requires

from aft_lens.errors import Stopped, answer, printable, report_defect


def answered(program: str, call: Callable[[], int | None]) -> int:
    """Exit status of a call, whatever it raises: its own or 0; 2 and a line on stderr on bad input; 1 on a stop.

    A defect ends in 1, too; it is said to be one, with the file that its traceback is kept in. What a thread beside the
    call raised is said where the call itself came through: one that fails by the same cause is a line, not two.
    """
    with _threads_errors() as errors:
        status = _answered(program, call)
    return _failed(program, errors[0]) if errors and not status else status


@contextmanager
def _threads_errors() -> Iterator[list[BaseException]]:
    """What threads raise inside the block, in place of their tracebacks on stderr."""
    found: list[BaseException] = []

    def keep(thread: threading.ExceptHookArgs) -> None:
        if thread.exc_value is not None:
            found.append(thread.exc_value)

    before, threading.excepthook = threading.excepthook, keep
    try:
        yield found
    finally:
        threading.excepthook = before


def _answered(program: str, call: Callable[[], int | None]) -> int:
    """`answered`, of what this thread raises."""
    for stream in (sys.stdout, sys.stderr):  # a terminal may know fewer characters than we write
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        status = call()
        sys.stdout.flush()
        return status or 0
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return _said(program, "stopped by Ctrl-C", 130)
    except ModuleNotFoundError as error:
        return _said(program, missing_module(error), 2)
    except Stopped as stopped:
        return _said(program, str(stopped), 1)
    except Exception as error:  # the last border: whatever else there is, nobody is shown a traceback
        return _failed(program, error)
    return 0


def _failed(program: str, error: BaseException) -> int:
    """The exit status of an error, its words or those of a defect being said."""
    words = answer(error)
    return _said(program, words, 2) if words else _said(program, report_defect(error), 1)


def missing_module(error: ModuleNotFoundError) -> str:
    """What to install for a module that is missing; by this package's own extras."""
    name = (error.name or "").partition(".")[0]
    if "aft-lens[" in str(error) or not name:
        return str(error)
    wanted = name.replace("_", "-").lower()
    with suppress(PackageNotFoundError):
        for line in requires("aft-lens") or ():
            need, _, marker = line.partition(";")
            extra = re.search(r"extra == [\"']([^\"']+)", marker)
            if extra and re.match(r"[A-Za-z0-9._-]+", need.strip())[0].replace("_", "-").lower() == wanted:  # type: ignore[index]
                return f"{name} is not installed; run: pip install 'aft-lens[{extra[1]}]'"
    return f"{name} is not installed; run: pip install 'aft-lens[analyses]'"  # as most of what the core does without


def _said(program: str, words: str, status: int) -> int:
    """The status, its words being said."""
    with suppress(OSError):  # nobody may listen
        print(f"{program}: {printable(words)}", file=sys.stderr)
    return status
