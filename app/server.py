"""The process that serves: Streamlit, which ends with the process that started it, however that one ends."""

import ctypes
import os
import signal
import sys

from streamlit.web import cli

PARENT_DIED = 1
"""prctl's PR_SET_PDEATHSIG."""


def end_with(parent: int) -> None:
    """Have Linux send SIGTERM when the parent process dies, also of a kill that it cannot hear."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DIED, signal.SIGTERM)
        if os.getppid() != parent:  # it died before
            sys.exit(1)


if __name__ == "__main__":
    end_with(int(sys.argv.pop(1)))
    cli.main(prog_name="streamlit")
