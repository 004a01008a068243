"""`python -m analyses.locality`, the same as `aft-lens locality`."""

import jsonargparse

from analyses.locality import command

if __name__ == "__main__":
    jsonargparse.auto_cli(command)
