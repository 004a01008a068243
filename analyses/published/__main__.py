"""`python -m analyses.published`."""

from analyses.command import run_module
from analyses.published import command

if __name__ == "__main__":
    run_module("analyses.published", command)
