"""`python -m analyses.match`."""

from analyses.command import run_module
from analyses.match import command

if __name__ == "__main__":
    run_module("analyses.match", command)
