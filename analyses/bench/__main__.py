"""`python -m analyses.bench ops`, the same as `aft-lens bench ops`."""

from analyses.bench import command
from analyses.command import run_module

if __name__ == "__main__":
    run_module("analyses.bench", command)
