"""A server and all that it has started, as one: their memory."""

import psutil


def family(pid):
    """The server and what it has started."""
    first = psutil.Process(pid)
    return [first, *first.children(recursive=True), *_forks(first)]


def _forks(first):
    """Forks are in a session of their own, below the process that forks."""
    known = {child.pid for child in first.children(recursive=True)}
    found = []
    for one in psutil.process_iter(["cmdline"]):
        if "app.back.zygote" in (one.info["cmdline"] or []) and one.pid not in known:
            found += [one] if any(parent.pid in known | {first.pid} for parent in one.parents()) else []
    return found


def memory(pid):
    """Megabytes of all of them, shared pages counted once."""
    total = 0
    for one in family(pid):
        try:
            total += one.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
    return total / 1e6
