"""What is asked of a library's adapter, and the errors that adapters share."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from aft_lens.errors import InputError

PREFIXES = ("module.", "_orig_mod.", "model.", "state_dict.")
"""What wrappers put before the names of a model's tensors."""


@dataclass(frozen=True)
class Request:
    """A model of some library, and how it is to be opened."""

    spec: str
    """As the user wrote it."""
    name: str
    """The model within its library."""
    pretrained: bool
    """False: random weights."""
    grid: tuple[int, int] | None
    """Patches (rows, columns) to run at; None: the model's own."""
    prefix: int | None
    """Tokens before the patches; None: inferred."""

    def check_prefix(self, found: int) -> int:
        """The tokens before the patches that a model was found to have; ValueError if others were asked for."""
        if self.prefix not in (None, found):
            raise ValueError(
                f"{self.spec}: prefix {self.prefix} was asked for, the model puts {found} tokens before its patches; "
                "leave prefix out"
            )
        return found

    def stage(self, word: str) -> "tuple[Request, int | None]":
        """The request without a last `,stage=N` of its name, and N; InputError if that is no number."""
        name, mark, number = self.name.rpartition(",stage=")
        if not mark:
            return self, None
        if not number.isdecimal():
            raise InputError(f"{self.spec}: stage must be a number, got {number!r}; give {word}:NAME,stage=2")
        return replace(self, name=name, spec=f"{word}:{name}"), int(number)

    def own_weights(self, word: str) -> tuple[str, Path | None, int | None]:
        """The model's name, and the file and number of classes that follow it: NAME,weights=FILE,classes=N.

        `word` is the library's. Raises InputError on other words and on a file that is not there.
        """
        name, *words = self.name.split(",")
        options = dict(each.partition("=")[::2] for each in words)
        if not options:
            return name, None, None
        if set(options) - {"weights", "classes"} or "weights" not in options or ":" in name:
            raise InputError(f"{self.spec}: give {word}:NAME,weights=FILE, or {word}:NAME,weights=FILE,classes=N")
        file = Path(options["weights"]).expanduser()
        if not file.is_file():
            raise InputError(f"{self.spec}: there is no file {file}")
        count = options.get("classes")
        if count is not None and not count.isdecimal():
            raise InputError(f"{self.spec}: classes must be a number, got {count!r}")
        return name, file, None if count is None else int(count)

    def named_tensors(self, state: Any, file: Path) -> dict[str, Tensor]:
        """What a file holds, if that is tensors by name; without the `model.` that trainers put before all of them."""
        if not isinstance(state, dict) or not all(isinstance(one, Tensor) for one in state.values()):
            raise InputError(f"{self.spec}: {file} holds no tensors by name; save model.state_dict() alone")
        if state and all(key.startswith("model.") for key in state):
            return {key.removeprefix("model."): one for key, one in state.items()}
        return state

    @contextmanager
    def fetching(self, local: str, *, here: bool = False) -> Iterator[None]:
        """Turn whatever a library raises inside the block into InputError or FileNotFoundError.

        `local` says how to give a local copy; `here` that the files are one, which is then damaged and not missing.
        """
        try:
            yield
        except InputError:
            raise
        except OSError as error:  # what every library's download ends in, no connection and a missing file alike
            if here:
                raise self._unreadable(error) from error
            raise FileNotFoundError(
                f"{self.spec}: the weights could not be fetched ({_reason(error)}); connect once, "
                f"{local}, or take random weights with pretrained=False (--pretrained false)"
            ) from error
        except ImportError:
            raise
        except Exception as error:  # a library's readers raise anything on a file that is not as they expect
            raise self._unreadable(error) from error

    def check_loaded(self, model: nn.Module, missing: Collection[str] = (), unexpected: Collection[str] = ()) -> None:
        """InputError if weights stayed random, their names being `missing`, or are not finite."""
        if missing:
            known = [prefix for prefix in PREFIXES if any(name.startswith(prefix) for name in unexpected)]
            hint = f": their names start with {known[0]!r}, take that off" if known else ""
            also = f", and has {_few(unexpected)}, which the model has not{hint}" if unexpected else ""
            raise InputError(
                f"{self.spec}: the file has no {_few(missing)}{also}; those weights would stay random: save the whole "
                "model anew with its library, or take all of them random with pretrained=False (--pretrained false)"
            )
        broken = [name for name, tensor in model.state_dict().items() if not bool(tensor.isfinite().all())]
        if broken:
            raise InputError(
                f"{self.spec}: weights that are NaN or infinite in {_few(broken)}; train or copy the model again"
            )

    def _unreadable(self, error: Exception) -> InputError:
        return InputError(
            f"{self.spec}: cannot be read ({_reason(error)}); copy or save the model again, or take random weights "
            "with pretrained=False (--pretrained false)"
        )


def _reason(error: Exception) -> str:
    """What an error of a library says, in a line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])[:300]}" if lines else type(error).__name__


def _few(names: Collection[str]) -> str:
    """The first names, and how many more there are."""
    shown = sorted(names)[:3]
    return ", ".join(shown) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
