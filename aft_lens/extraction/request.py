"""What is asked of a library's adapter, and the errors that adapters share."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


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

    @contextmanager
    def fetching(self, local: str) -> Iterator[None]:
        """Turn a failed download inside the block into FileNotFoundError; `local` says how to give a local copy."""
        try:
            yield
        except OSError as error:  # what every library's download ends in, no connection and a missing file alike
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise FileNotFoundError(
                f"{self.spec}: the weights could not be fetched ({reason}); connect once, "
                f"{local}, or take random weights with pretrained=False (--pretrained false)"
            ) from error
