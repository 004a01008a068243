"""Folders that the app may look into: the roots, those given for images, and the one that it was started in."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

ROOTS_VARIABLE, DATA_VARIABLE = "AFT_LENS_ROOTS", "AFT_LENS_DATA"
"""Environment variables with the folders the app lists, and those of image files it may show, as JSON lists."""
JOBS_VARIABLE, WRITE_VARIABLE = "AFT_LENS_JOBS", "AFT_LENS_WRITE"
"""Environment variables with the folder that results of jobs are kept in, and 1 where pages may start runs."""
SHIPPED = next(
    (path for path in (Path(__file__).parents[1] / place for place in ("aft_lens/checkpoints", "checkpoints"))
     if path.is_dir()), Path(__file__).parents[1] / "checkpoints",
)  # fmt: skip
"""Checkpoints that come along; `aft_lens.checkpoint` finds the same, but the server does not import PyTorch."""


def roots() -> list[Path]:
    """Folders searched: AFT_LENS_ROOTS if set, else checkpoints/ and runs/ here, and the shipped checkpoints."""
    given = _folders(ROOTS_VARIABLE)
    if given:
        return given
    here = [Path("checkpoints"), Path("runs")]
    return here if here[0].resolve() == SHIPPED or not SHIPPED.is_dir() else [*here, SHIPPED]


def allowed(path: Path) -> bool:
    """Whether a page may look into a folder: it lies below the roots, those given for images, or the one started in."""
    wanted = path.expanduser().resolve()
    return any(wanted.is_relative_to(folder.resolve()) for folder in _given())


def _given() -> Iterator[Path]:
    yield from roots()
    yield from _folders(DATA_VARIABLE)
    yield Path.cwd()


def _folders(variable: str) -> list[Path]:
    """The folders in an environment variable: a JSON list, or by hand separated like PATH."""
    given = os.environ.get(variable, "")
    parts = json.loads(given) if given.startswith("[") else given.split(os.pathsep)
    return [Path(part) for part in parts if part]
