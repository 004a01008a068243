"""Evaluation mode for as long as something is measured."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Inside, a module is in evaluation mode; afterwards it is in the mode that it was in, whatever happened."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)
