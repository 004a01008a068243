"""The door for other libraries' ViTs: adapters by the word before the colon of a source.

An adapter that ships is a module WORD_vit here with `open_model` and `read_model`, and perhaps a WORD_positions with
`open_positions`; the extra that installs its library is called WORD. They are found by their names and imported when
one is asked for, as they import their libraries. Other packages add theirs by entry points: `WORD = package.module`.
"""

from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, Protocol

from torch import nn

from aft_lens.extraction.reader import AttentionReader
from aft_lens.extraction.request import Request
from aft_lens.registry import Registry

if TYPE_CHECKING:  # which imports this package itself
    from aft_lens.extraction.positions import PositionMap


class Adapter(Protocol):
    """A module that reads one library's ViTs.

    It may have `open_positions(request) -> list[PositionMap]` too, and, for models that are held in memory, `library`
    (the package that defines their classes) with `read_model(model) -> AttentionReader`.
    """

    def open_model(self, request: Request) -> AttentionReader:
        """The model that is asked for, behind a reader; ValueError or FileNotFoundError, in words, where there is none.

        Called with the random state set to the seed of the request, for architectures without weights.
        """


@dataclass(frozen=True)
class Shipped:
    """An adapter of this package, imported when a model is opened."""

    word: str

    @property
    def library(self) -> str:
        """The package that defines the models' classes."""
        return LIBRARIES.get(self.word, self.word)

    def read_model(self, model: nn.Module) -> AttentionReader:
        """As its module's."""
        return self._module("vit").read_model(model)

    def open_model(self, request: Request) -> AttentionReader:
        """As its module's; ModuleNotFoundError names the extra that installs its library."""
        return self._module("vit").open_model(request)

    def _module(self, part: str) -> Any:
        try:
            return import_module(f"{__name__}.{self.word}_{part}")
        except ModuleNotFoundError as error:
            if error.name is None or error.name.startswith(__name__.partition(".")[0]):
                raise
            raise ModuleNotFoundError(
                f"{error.name} is not installed; run: pip install 'aft-lens[{self.word}]'", name=error.name
            ) from error


class ShippedWithPositions(Shipped):
    """An adapter of this package that reads positions, too."""

    def open_positions(self, request: Request) -> "list[PositionMap]":
        """As its module's; ModuleNotFoundError names the extra that installs its library."""
        return self._module("positions").open_positions(request)


LIBRARIES = {"hf": "transformers"}
"""Packages that are not called as the words of their adapters."""
ADAPTERS: Registry[Adapter] = Registry("library", "aft_lens.vit_adapters")
_MODULES = {module.name for module in iter_modules(__path__)}
for _word in sorted(name.removesuffix("_vit") for name in _MODULES if name.endswith("_vit")):
    ADAPTERS.add(_word, (ShippedWithPositions if f"{_word}_positions" in _MODULES else Shipped)(_word))


def read_model(model: nn.Module) -> AttentionReader:
    """A reader of a model that is held in memory, by the adapter of the package that defines it or a class above it.

    Raises ValueError, with what was looked for, where there is no such adapter or it cannot read the model.
    """
    packages = {kind.__module__.partition(".")[0] for kind in type(model).__mro__}
    known = {getattr(ADAPTERS[word], "library", ""): word for word in ADAPTERS}
    for package in packages & set(known):
        adapter: Any = ADAPTERS[known[package]]
        return adapter.read_model(model)
    raise ValueError(
        f"looked for a model of {', '.join(sorted(filter(None, known)))} or a VisionModel, found "
        f"{type(model).__module__}.{type(model).__name__}; subclass aft_lens.extraction.AttentionReader to read it"
    )
