"""`python -m analyses.study paper-claims`, the same as `aft-lens study paper-claims`."""

from analyses.command import run_module
from analyses.study import command

if __name__ == "__main__":
    run_module("analyses.study", command)
