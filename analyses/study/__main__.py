"""`python -m analyses.study paper-claims`."""

import sys

import jsonargparse

from analyses.provenance import commanded, module_line
from analyses.study import command

if __name__ == "__main__":
    with commanded(*module_line("analyses.study", sys.argv[1:])):
        jsonargparse.auto_cli(command)
