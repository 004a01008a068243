"""Things by name: what ships here, and what other packages add through entry points."""

from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar

T = TypeVar("T")


class Registry(Generic[T]):
    """What ships under a name, and what installed packages add to it.

    `what` is the thing in words, for errors ("criterion"); `group` the entry points that other packages add by, e.g.
    aft_lens.criteria: an entry point's name is the thing's, its value is the thing (`module:attribute`). They are
    imported when they are asked for, not when they are listed.
    """

    def __init__(self, what: str, group: str) -> None:
        self.what, self.group = what, group
        self._own: dict[str, T] = {}

    def add(self, name: str, thing: T) -> T:
        """Register a thing that ships here and return it; ValueError if the name is taken."""
        if name in self._own:
            raise ValueError(f"{self.what} {name!r} is registered twice")
        self._own[name] = thing
        return thing

    def names(self) -> tuple[str, ...]:
        """Every name: what ships in the order in which it was registered, then what other packages add."""
        added = {point.name for point in entry_points(group=self.group)}
        return (*self._own, *sorted(added - set(self._own)))

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self.names()  # looking into all packages takes a while

    def __getitem__(self, name: str) -> T:
        """The thing of that name; what ships comes before what is added. ValueError says which names there are."""
        if name in self._own:
            return self._own[name]
        for point in entry_points(group=self.group, name=name):
            return point.load()
        raise ValueError(f"{self.what} must be one of {', '.join(self.names())}, got {name!r}")
