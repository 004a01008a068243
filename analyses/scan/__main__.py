"""`python -m analyses.scan`."""

from analyses.command import run_module
from analyses.scan import command

if __name__ == "__main__":
    run_module("analyses.scan", command)
