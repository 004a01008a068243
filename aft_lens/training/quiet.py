"""Lightning without its advice."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_advice() -> Iterator[None]:
    """Inside the block Lightning gives no advice on loaders and folders, which is known here, nor on its own code.

    So training goes through where a user makes warnings errors; warnings of this project stay what they are.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="lightning")
        warnings.filterwarnings("ignore", message="Checkpoint directory", category=UserWarning)
        warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")  # Lightning's own use of PyTorch
        yield


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Inside the block Lightning tells neither its setup nor its advice."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with without_advice():
        yield
