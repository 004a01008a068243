"""The parser of every command: fields say what they mean, and a mistyped option names the nearest."""

import re
import sys
from argparse import Action, HelpFormatter
from difflib import get_close_matches
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, DefaultHelpFormatter, set_parsing_settings

set_parsing_settings(docstring_parse_attribute_docstrings=True)  # the line under each field of a dataclass
UNKNOWN = (
    r"unrecognized arguments:\s+--?(?P<option>[\w.-]+)",
    r"[Kk]ey '(?P<option>[\w.-]+)' is not expected",
    r"Group '(?P<group>[\w.]+)' does not accept option '(?P<option>\w+)'",
    r"Parser key \"(?P<group>[\w.]+)\".*Option '(?P<option>\w+)' is not accepted",
)
"""What jsonargparse says of an option, and of a key in a file, that there is not."""
WRONG = re.compile(
    r"Parser key \"(?P<option>[\w.]+)\":\s+Expected an? <class '(?P<kind>\w+)'>\. Got value: (?P<value>.*)"
)
"""What it says of a value of another type."""
RAISES = re.compile(r"\.? Raises \w+[^:]*")
"""What a docstring says to a programmer; the user sees the error itself."""


TYPES = (
    (re.compile(r"Union\[list\[(\w+)\], \w+, null\]"), lambda found: f"{found[1].lower()}, or a list"),
    (re.compile(r"Optional\[(.*)\](?=[,)])"), lambda found: found[1]),
    (re.compile(r"<class '(\w+)'>"), lambda found: found[1].lower()),
    (re.compile(r" \| null\b"), lambda _: ""),
    (re.compile(r", default: null\b"), lambda _: ""),
    (re.compile(r"\bPath\b(?=[,)])"), lambda _: "path"),
)
"""How types are said in help: as users call them; what may be left out is seen by its having no default."""


class Formatter(DefaultHelpFormatter):
    """jsonargparse's, with types in words."""

    def _expand_help(self, action: Action) -> str:
        said = super()._expand_help(action)
        words, kind, types = said.rpartition("(")  # the types come last
        for pattern, plain in TYPES:
            types = pattern.sub(plain, types)
        return words + kind + types


class Parser(ArgumentParser):
    """jsonargparse's with help for users; options are not abbreviated, so that a recorded line means the same later.

    An option of several words takes dashes (`--drop-heads`, as help shows it) and underscores (`--drop_heads`) alike;
    fields of recipes (`--model.embed_dim`) are shown as their files have them.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=Formatter, **options)

    def parse_args(self, *args: Any, **options: Any) -> Any:
        """As jsonargparse does, options in either spelling."""
        self._take_dashes()
        return super().parse_args(*args, **options)

    def _take_dashes(self) -> None:
        """Give every option with underscores its other spelling."""
        for action in self._actions:
            words: Any = action.option_strings
            for word in list(words):
                dashed = word.replace("_", "-")
                if dashed == word or dashed in self._option_string_actions:
                    continue
                self._option_string_actions[dashed] = action
                if "." not in word:
                    words[words.index(word)] = dashed

    def format_help(self, formatter: HelpFormatter | None = None) -> str:
        """The help, without what is raised."""
        self._take_dashes()
        self.description = RAISES.sub("", self.description or "")
        for group in self._action_groups:
            group.title = RAISES.sub("", group.title or "")
        return super().format_help(formatter)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say in a line what is wrong and what comes near, and exit with 2; ArgumentError where it never exits."""
        if not self.exit_on_error:
            super().error(message, ex)
        for pattern in UNKNOWN:
            if found := re.search(pattern, message, re.DOTALL):
                message = self._unknown(
                    "--" + ".".join(filter(None, (found.groupdict().get("group"), found["option"])))
                )
                break
        message = WRONG.sub(r"--\g<option> must be \g<kind>, got \g<value>", message)
        print(f"{self.prog}: {message}", file=sys.stderr)
        self.exit(2)

    def _unknown(self, option: str) -> str:
        """An option that there is not, with the nearest that there is."""
        known = [word for action in self._actions for word in action.option_strings if action.dest != "help"]
        near = get_close_matches(option, known, n=1)
        meant = f"; did you mean {near[0]}?" if near else "."
        return f"there is no option {option}{meant} `{self.prog} --help` shows all"
