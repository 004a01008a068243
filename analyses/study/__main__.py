"""`python -m analyses.study paper-claims`."""

import jsonargparse

from analyses.study import command

if __name__ == "__main__":
    jsonargparse.auto_cli(command)
