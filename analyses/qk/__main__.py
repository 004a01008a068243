"""`python -m analyses.qk`."""

from analyses.command import run_module
from analyses.qk import command

if __name__ == "__main__":
    run_module("analyses.qk", command)
