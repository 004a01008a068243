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

from aft_lens.later import later
from analyses.answered import answered
from analyses.line import commanded
from analyses.parser import Parser

if TYPE_CHECKING:  # parsing draws nothing
    from aft_lens.extraction import Preprocessing, said
    from analyses.result import Result
else:
    said = later("aft_lens.extraction.said")


SOURCE_OPTIONS: dict[str, tuple[Any, str]] = {
    "weights": (str | None, "File of the model's own weights, .safetensors or tensors that torch.save wrote."),
    "num_classes": (int | None, "Classes of those weights, where the file does not say."),
    "size": (int | None, "Side of the image in pixels, checked against the model."),
    "mean": (
        float | list[float] | None,
        "Of each channel, in [0, 1], e.g. [0.485,0.456,0.406], where no processor says it.",
    ),
    "std": (float | list[float] | None, "Standard deviation of each channel, as the mean."),
}
"""What every command that takes a `source` takes beside it, for other libraries' models: its type and its words."""


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
    given = vars(parser.instantiate(parser.parse_args(words)))
    told = {name: given.pop(name) for name in SOURCE_OPTIONS if name not in signature(command).parameters
            and name in given}  # fmt: skip
    with commanded(*program, *arguments):
        if any(value is not None for value in told.values()):
            given["source"] = said.with_words(given["source"], **told)
        command(**given)


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


def known_data(
    source: str, name: str | None, way: "Preprocessing | None",
    advice: str = ", e.g. images:PATH with a folder of images",
) -> tuple[str, "Preprocessing"]:  # fmt: skip
    """The data set that a source's images come from, and how they are prepared; ValueError where one is unknown.

    `advice` follows what the error says to give.
    """
    way = prepared(source, way)
    if name is None:
        raise ValueError(f"{source} is of no known data set; give --data{advice}")
    return name, way


def prepared(source: str, way: "Preprocessing | None") -> "Preprocessing":
    """How images are prepared for a source; ValueError where neither its files nor the command say it."""
    if way is None:
        raise ValueError(
            f"{source} does not say how images must come; give --mean and --std, or save its image processor beside it"
        )
    return way


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
    if "source" in hints:
        group = parser.add_argument_group("another library's model")
        for name, (kind, meaning) in SOURCE_OPTIONS.items():
            if name not in hints:
                group.add_argument(f"--{name}", type=kind, default=None, help=meaning)
    for name, default in defaults.items():
        add_yes_or_no(parser, name, default, help_of.get(name) or "")
    return parser


def _listed(arguments: list[str]) -> list[str]:
    """Several words before the first option as the one list that the parser takes them as."""
    words = list(takewhile(lambda word: not word.startswith("-"), arguments))
    return [json.dumps(words), *arguments[len(words) :]] if words and not words[0].startswith("[") else arguments
