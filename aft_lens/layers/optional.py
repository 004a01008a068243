"""What stands on other packages is optional: pip install "aft-lens[baselines]"."""

from importlib import import_module
from types import ModuleType


def baseline(package: str) -> ModuleType:
    """Import an optional package, or raise ImportError naming the extra that brings it."""
    try:
        return import_module(package)
    except ImportError as error:
        raise ImportError(f'{package} is needed here: pip install "aft-lens[baselines]"') from error
