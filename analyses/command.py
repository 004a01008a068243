"""From a `command` function to a command: its signature's options, the line that is recorded, what is printed."""

import json
import sys
from collections.abc import Callable, Sequence
from inspect import signature
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_origin, get_type_hints

import docstring_parser
from jsonargparse import ActionYesNo, ArgumentParser

from analyses.answered import answered
from analyses.parser import Parser
from analyses.provenance import commanded

if TYPE_CHECKING:  # parsing draws nothing
    from analyses.result import Result


def run(
    command: Callable[..., Any], program: Sequence[str], arguments: Sequence[str], *, as_positional: bool = True
) -> None:
    """Call a `command` function with what its signature makes of the arguments, recorded as the line that ran.

    `program` are the words before the arguments, e.g. aft-lens bias. A first parameter that is a list takes several
    words; a yes-or-no parameter is --NAME and --no-NAME, or --NAME true and --NAME false. With `as_positional` False
    required parameters are options too. Exits as argparse does on arguments that do not parse.
    """
    parser = _parser(command, " ".join(program), as_positional)
    words = list(arguments)
    if get_origin(next(iter(signature(command).parameters.values())).annotation) is list:
        words = _listed(words)
    with commanded(*program, *arguments):
        command(**vars(parser.instantiate(parser.parse_args(words))))


def run_module(module: str, command: Callable[..., Any], *, as_positional: bool = True) -> None:
    """What `python -m MODULE` does: `run` with the arguments of this process, and exit with its status."""
    program = ("python", "-m", module)
    sys.exit(answered(" ".join(program), lambda: run(command, program, sys.argv[1:], as_positional=as_positional)))


def add_yes_or_no(parser: ArgumentParser, name: str, default: bool, words: str) -> None:
    """Give a parser --NAME and --no-NAME, which take true or false as well."""
    action = parser.add_argument(
        f"--{name}", action=ActionYesNo(no_prefix="no-"), nargs="?", default=default, help=words
    )
    action.metavar = "BOOL"


def report(result: "Result", folder: Path, name: str | None = None) -> None:
    """Print a result's table, save it, and print where."""
    print(result)
    save(result, folder, name)


def save(result: "Result", folder: Path, name: str | None = None) -> None:
    """Save a result and print where."""
    for path in result.save(folder, name):
        print(f"wrote {path}")


def report_folder(source: Path | str, *variant: str) -> Path:
    """Where a source's figures go if nothing is said: reports/NAME, NAME being a checkpoint's or a library's model's.

    A pruned model, whose own folder is called "model", has the name of the folder that it was pruned into. Each
    `variant` is added to the name, so that a control does not replace what it is a control of.
    """
    path = Path(source)
    if path.is_dir():
        path = path.resolve()
        name = path.parent.name if path.name == "model" else path.name
    else:
        name = str(source).replace(":", "-").replace("/", "-")
    return Path("reports") / "-".join([name, *variant])


def _parser(command: Callable[..., Any], program: str, as_positional: bool) -> ArgumentParser:
    """The parser of a function's parameters, their help from its docstring."""
    words = docstring_parser.parse(command.__doc__ or "")
    help_of = {parameter.arg_name: parameter.description for parameter in words.params}
    hints: dict[str, Any] = get_type_hints(command)
    defaults = {name: p.default for name, p in signature(command).parameters.items() if hints.get(name) is bool}
    parser = Parser(prog=program, description=words.short_description)
    parser.add_function_arguments(
        command, as_group=False, as_positional=as_positional, fail_untyped=True, skip=set(defaults), sub_configs=True
    )
    for name, default in defaults.items():
        add_yes_or_no(parser, name, default, help_of.get(name) or "")
    return parser


def _listed(arguments: list[str]) -> list[str]:
    """Several words before the first option as the one list that the parser takes them as."""
    words = list(takewhile(lambda word: not word.startswith("-"), arguments))
    return [json.dumps(words), *arguments[len(words) :]] if words and not words[0].startswith("[") else arguments
