"""Libraries that are imported when they are first used: a command's help must not wait for what only its work needs."""

from importlib import import_module
from types import ModuleType
from typing import Any


class later(ModuleType):
    """A module that stands for another one, which the first use of a name of it imports.

    Type checkers are told by an import below `TYPE_CHECKING`.
    """

    def __getattr__(self, name: str) -> Any:
        """The name of the real module."""
        return getattr(import_module(self.__name__), name)


def names_of(package: str, places: dict[str, str]) -> Any:
    """A package's `__getattr__`, by which each of its names is imported from its module when it is first used."""

    def get(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{places[name]}"), name)

    return get
