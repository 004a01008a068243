"""`python -m analyses.knockout`, the same as `aft-lens knockout`."""

from analyses.command import run_module
from analyses.knockout import command

if __name__ == "__main__":
    run_module("analyses.knockout", command)
