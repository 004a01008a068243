"""`python -m analyses.attribution`."""

from analyses.attribution import command
from analyses.command import run_module

if __name__ == "__main__":
    run_module("analyses.attribution", command)
