"""Lightning without its advice."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

LOGGERS = ("lightning.pytorch", "lightning.fabric")
"""Whose information on devices, loaders, checkpoints and products of the makers nobody asked for."""


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Inside the block Lightning tells neither its setup nor its advice on loaders and folders, which is known here.

    So training goes through where a user makes warnings errors; warnings of this project stay what they are.
    """
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module="lightning")
            warnings.filterwarnings("ignore", message="Checkpoint directory", category=UserWarning)
            warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")  # Lightning's own use of PyTorch
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
