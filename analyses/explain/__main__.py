"""`python -m analyses.explain`."""

from analyses.command import run_module
from analyses.explain import command

if __name__ == "__main__":
    run_module("analyses.explain", command)
