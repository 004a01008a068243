"""`python -m analyses.explain`."""

from jsonargparse import auto_cli

from analyses.explain import command

if __name__ == "__main__":
    auto_cli(command)
