"""`python -m analyses.pruning CHECKPOINT --keep 1`, the same as `aft-lens prune`."""

from analyses.command import run_module
from analyses.pruning.command import command

if __name__ == "__main__":
    run_module("analyses.pruning", command)
