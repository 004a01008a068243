"""Answers and defects: errors that tell a user what to do, and errors that tell us.

A border to the world (a file, a library's model, a folder) turns what it meets into `InputError`. `answer` says what an
error tells a user; it has no words for a defect, whose traceback is kept instead.
"""

import errno
import re
import sys
import tempfile
import traceback
from importlib.metadata import entry_points
from pathlib import Path

NEXT_STEP = {
    errno.ENOSPC: "free some space, or write elsewhere",
    errno.EDQUOT: "free some space, or write elsewhere",
    errno.EFBIG: "raise the limit of file sizes, or write elsewhere",
    errno.EACCES: "choose a place that you may use, or change its rights",
    errno.EPERM: "choose a place that you may use, or change its rights",
    errno.EROFS: "choose a place that can be written",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "close other programs, or raise the system's limit of open files",
    errno.ENOTDIR: "a file stands where a folder is needed; remove it or choose another place",
    errno.EISDIR: "a folder stands where a file is needed; choose another name",
    errno.EEXIST: "remove it or choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOMEM: "close other programs, or ask for less at once",
    errno.EIO: "the disk or network drive has a fault; copy what is there and look at it",
}
"""By number of an operating system's error, what a user can do."""
SPOKEN = (ValueError, RuntimeError, OSError, FloatingPointError, ImportError)
"""What this project raises with words for the user."""
UNSPOKEN = (UnicodeError, NotImplementedError, RecursionError)
"""Kinds of those that nobody raises with words."""
OWN = ("aft_lens", "analyses", "app", "__main__")
"""Packages whose errors have words, beside those that add to this one."""
_WORKER = re.compile(r"^Caught \w+ in .* worker process \d+\.\nOriginal Traceback", re.DOTALL)
_MEMORY = re.compile("can't allocate memory|out of memory|not enough memory|bad_alloc", re.IGNORECASE)


class InputError(ValueError):
    """What was given cannot be used: the message names it, what came, and the next step.

    It is made of its message alone. A loader's worker process hands an error on as the text of a traceback, out of
    which the message is taken again.
    """

    def __init__(self, message: str) -> None:
        if _WORKER.match(message):
            message = message.rstrip().rpartition(f"{type(self).__module__}.{type(self).__qualname__}: ")[2]
        super().__init__(message)


class Stopped(RuntimeError):
    """Work was stopped from outside; what it had finished is kept, and the message says how to go on."""


def answer(error: BaseException) -> str:
    """What an error tells the user, with the next step; empty for a defect."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        step = NEXT_STEP.get(error.errno)
        return f"{place}{error.strerror}" + (f"; {step}" if step else "")
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _MEMORY.search(str(error))):
        return "there is not enough memory for this; ask for less at once (images, batch size, model), or free some"
    if isinstance(error, Warning):
        return f"{error} (a warning, which Python was told to take for an error)"
    if isinstance(error, SPOKEN) and not isinstance(error, UNSPOKEN) and _raised_here(error):
        return str(error)
    return ""


def report_defect(error: BaseException) -> str:
    """Keep the traceback of a defect in a file and return a line that says where it is and how to report it."""
    last = traceback.extract_tb(error.__traceback__)[-1:]
    where = "".join(f" at {Path(frame.filename).name}:{frame.lineno}" for frame in last)
    said = " ".join(str(error).split())[:200]
    words = f"{type(error).__name__}{where}{f' ({said})' if said else ''} is a defect, not your input's fault"
    lines = traceback.format_exception(error)
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="aft-lens-defect-", suffix=".txt", delete=False, encoding="utf-8", errors="replace"
        ) as file:
            file.write(f"{sys.argv}\n{''.join(lines)}")
    except OSError:  # no room left for it, which may be the very cause
        return f"{words}; please report it with what you ran"
    return f"{words}; please report it with what you ran and {file.name}"


def printable(text: str) -> str:
    """Text for a terminal: what would move its cursor, ring or colour it is written out, lines stay lines."""
    return "".join(char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode()
                   for char in text)  # fmt: skip


def markless(text: str) -> str:
    """Text for a drawing, whose titles and labels take < and > for marks of a page: other brackets in their place."""
    return printable(text).replace("<", "‹").replace(">", "›")


def _raised_here(error: BaseException) -> bool:
    """Whether the code of this project, or of a package that adds to it, raised an error; a library's has no words."""
    trace = error.__traceback__
    if trace is None:
        return True
    while trace.tb_next is not None:
        trace = trace.tb_next
    root = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
    groups = [group for group in entry_points().groups if group.startswith("aft_lens.")]
    return root in OWN or root in {
        point.module.partition(".")[0] for group in groups for point in entry_points(group=group)
    }
