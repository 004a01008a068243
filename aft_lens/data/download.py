"""Data sets that torchvision finds or fetches."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError


def download(kind: Callable[..., Any], root: Path, hint: str, **options: Any) -> Any:
    """Let torchvision find or fetch a data set; FileNotFoundError with the next step if it cannot."""
    try:
        return kind(root, download=True, **options)
    except (URLError, RuntimeError, OSError) as error:
        raise FileNotFoundError(
            f"data set {kind.__name__} is not in {root} and its download failed ({error}); {hint}"
        ) from error
