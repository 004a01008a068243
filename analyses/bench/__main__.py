"""`python -m analyses.bench ops`."""

import jsonargparse

from analyses.bench import command

if __name__ == "__main__":
    jsonargparse.auto_cli(command)
