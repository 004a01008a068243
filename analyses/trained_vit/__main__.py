"""`python -m analyses.trained_vit`."""

from analyses.command import run_module
from analyses.trained_vit import command

if __name__ == "__main__":
    run_module("analyses.trained_vit", command)
