"""Configurations by name, and the models that are built from them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Generic, TypeVar

C = TypeVar("C", bound=Any)
M = TypeVar("M")


class Named(Generic[C, M]):
    """Configurations of a kind by name, each a frozen record with a field `name`.

    `what` is the kind in words, for errors ("model"); `build` makes a model of a configuration, with fresh weights.
    """

    def __init__(self, what: str, configs: Mapping[str, C], build: Callable[[C], M]) -> None:
        self.what, self.configs, self.build = what, dict(configs), build

    def names(self) -> list[str]:
        """As `list_models` says."""
        return sorted(self.configs)

    def config(self, name: str, **overrides: Any) -> C:
        """As `model_config` says."""
        if name not in self.configs:
            raise ValueError(f"{self.what} name {name!r} is unknown; choose one of: {', '.join(self.names())}")
        return replace(self.configs[name], name=name, **overrides)

    def create(self, name: str, **overrides: Any) -> M:
        """As `create_model` says."""
        return self.build(self.config(name, **overrides))
