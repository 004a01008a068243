"""`python -m analyses.field`."""

from analyses.command import run_module
from analyses.field import command

if __name__ == "__main__":
    run_module("analyses.field", command)
