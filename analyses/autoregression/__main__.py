"""`python -m analyses.autoregression`, the same as `aft-lens autoregression`."""

from analyses.autoregression import command
from analyses.command import run_module

if __name__ == "__main__":
    run_module("analyses.autoregression", command)
