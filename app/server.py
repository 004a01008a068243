"""The process that serves: it ends with the process that started it, however that one ends."""

import signal
import sys
from importlib import import_module

from analyses.processes import end_with
from app.back.link import LINK

if __name__ == "__main__":
    end_with(int(sys.argv.pop(1)), signal.SIGTERM)
    LINK.start()  # it imports what computes, while this process imports what serves
    import_module("app.serving").main()
