"""`python -m analyses.ablate`."""

from analyses.ablate import command
from analyses.command import run_module

if __name__ == "__main__":
    run_module("analyses.ablate", command)
