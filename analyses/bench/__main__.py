"""`python -m analyses.bench ops`."""

import sys

import jsonargparse

from analyses.bench import command
from analyses.provenance import commanded, module_line

if __name__ == "__main__":
    with commanded(*module_line("analyses.bench", sys.argv[1:])):
        jsonargparse.auto_cli(command)
