"""The process that serves: Streamlit, which ends with the process that started it, however that one ends."""

import signal
import sys

from streamlit.web import cli

from analyses.processes import end_with

if __name__ == "__main__":
    end_with(int(sys.argv.pop(1)), signal.SIGTERM)
    cli.main(prog_name="streamlit")
