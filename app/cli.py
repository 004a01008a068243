"""The `aft-lens` command: one subcommand a job, whose module is imported when it is asked for."""

import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

import aft_lens
from app.commands import COMMANDS, command_module, command_words

EXTRAS = {"streamlit": "app", "onnx": "export", "onnxruntime": "export", "onnxscript": "export"}
"""The extra of what analyses do without."""
STOPPED = 130
"""Exit status after Ctrl-C: 128 and the signal's number, as shells have it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand: 0 if it worked, 1 on stopped training, 2 (and a line on stderr) on bad input, 130 on Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        _help()
        return 0
    if arguments[0] == "--version":
        print(f"aft-lens {aft_lens.__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    try:
        return _run(name, rest)
    except ModuleNotFoundError as error:
        said = str(error)
        print(f"aft-lens {name}: {said if 'aft-lens[' in said else _missing(error.name or said)}", file=sys.stderr)
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(f"\naft-lens {name}: stopped", file=sys.stderr)
        return STOPPED
    except RuntimeError as error:
        # Looked up, as importing what trains would cost every command seconds; what is not imported raised nothing.
        stopped = getattr(sys.modules.get("aft_lens.training.run"), "TrainingStopped", ())
        if not isinstance(error, stopped):
            raise
        print(f"aft-lens {name}: {error}", file=sys.stderr)
        return 1
    except (ValueError, FileNotFoundError, FileExistsError, FloatingPointError) as error:
        print(f"aft-lens {name}: {error}", file=sys.stderr)
    return 2


def _help() -> None:
    """Print the commands."""
    print("usage: aft-lens COMMAND [OPTIONS]; `aft-lens COMMAND --help` shows a command's options\n")
    for name, words in command_words().items():
        print(f"  {name:<10} {words}")
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


def _missing(module: str) -> str:
    """Which of the extras has a module that is not installed."""
    return f"{module} is not installed; run: pip install 'aft-lens[{EXTRAS.get(module, 'analyses')}]'"


if __name__ == "__main__":
    sys.exit(main())
