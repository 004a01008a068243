"""A process that ends with the one that started it, however that one ends."""

import ctypes
import os
import signal
import sys

PARENT_DIED = 1
"""prctl's PR_SET_PDEATHSIG."""


def end_with(parent: int, by: signal.Signals) -> None:
    """Have Linux send this process a signal when the parent process dies, also of a kill that it cannot hear."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DIED, by)
        if os.getppid() != parent:  # it died before
            sys.exit(1)
