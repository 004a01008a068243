"""`python -m analyses.compact`."""

from analyses.command import run_module
from analyses.compact import command

if __name__ == "__main__":
    run_module("analyses.compact", command)
