"""The `aft-lens` command: one subcommand a job, whose module is imported when it is asked for."""

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

import aft_lens
from analyses.answered import answered
from app.commands import COMMANDS, command_job, command_module, command_words


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit status, as `answered` has it."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        _help()
        return 0
    if arguments[0] == "--version":
        print(f"aft-lens {aft_lens.__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    return answered(f"aft-lens {name}", lambda: _run(name, rest))


def _help() -> None:
    """Print the commands."""
    print("usage: aft-lens COMMAND [OPTIONS]; `aft-lens COMMAND --help` shows a command's options\n")
    words = command_words()
    for job in dict.fromkeys(map(command_job, words)):
        print(job)
        for name in words:
            if command_job(name) == job:
                print(f"  {name:<10} {words[name]}")
    print("\n  --version  the version")


def _run(name: str, arguments: list[str]) -> int:
    """Run a command by the `main` of its module, or by the options of its `command`."""
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=1)
        meant = f": did you mean {near[0]}?" if near else ";"
        raise ValueError(f"command {name!r} is unknown{meant} choose one of: {', '.join(COMMANDS)}")
    module = command_module(name)
    if hasattr(module, "main"):
        return module.main(arguments)
    # Imported here, as it costs what `--help` and `--version` must not.
    import_module("analyses.command").run(module.command, ("aft-lens", name), arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
