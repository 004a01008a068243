"""`python -m analyses.locality`."""

from analyses.command import run_module
from analyses.locality import command

if __name__ == "__main__":
    run_module("analyses.locality", command)
