"""`python -m analyses.pruning CHECKPOINT --keep 1`, the same as `aft-lens prune`."""

import jsonargparse

from analyses.pruning.command import command

if __name__ == "__main__":
    jsonargparse.auto_cli(command)
