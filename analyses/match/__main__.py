"""`python -m analyses.match`, the same as `aft-lens match`."""

import jsonargparse

from analyses.match import command

if __name__ == "__main__":
    jsonargparse.auto_cli(command)
