"""Forward passes that start in the middle: the blocks before a layer are skipped, and what they would give is given."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from aft_lens.extraction.reader import AttentionReader

AGREES = 1e-5
"""Largest error of resumed outputs, as a fraction of their largest entry: the same kernels run on the same numbers."""


def blocks(reader: AttentionReader) -> list[nn.Module]:
    """The blocks of a ViT in order, one around each attention layer; empty where it has no such list."""
    for module in reader.model.modules():
        if isinstance(module, nn.ModuleList | nn.Sequential) and len(module) == len(reader.layers):
            found = list(module)
            if all(layer in set(block.modules()) for block, layer in zip(found, reader.layers)):
                return found
    return []


@contextmanager
def entering(reader: AttentionReader, sink: Callable[[int, Tensor], None]) -> Iterator[None]:
    """Inside the block, what enters every block of the model, `b t d`, goes to `sink` with the block's number.

    What leaves the last one comes with the number of blocks.
    """

    def hook(number: int) -> Callable[..., None]:
        return lambda _module, args, kwargs: sink(number, args[0] if args else next(iter(kwargs.values())))

    found = blocks(reader)
    with ExitStack() as stack:
        for number, block in enumerate(found):
            stack.callback(block.register_forward_pre_hook(hook(number), with_kwargs=True).remove)
        for block in found[-1:]:
            last = block.register_forward_hook(
                lambda _module, _inputs, output: sink(len(found), output if isinstance(output, Tensor) else output[0])
            )
            stack.callback(last.remove)
        yield


@contextmanager
def resumed(reader: AttentionReader, layer: int, hidden: Tensor) -> Iterator[None]:
    """Inside the block, forward passes skip the blocks before `layer`, whose input is `hidden`, `b t d`.

    Layer 0 runs all of the model. Attention layers that are skipped neither read nor change anything.
    """

    def skip(number: int) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            return hidden if number == layer - 1 else args[0] if args else next(iter(kwargs.values()))

        return forward

    with ExitStack() as stack:
        for number, block in enumerate(blocks(reader)[:layer]):
            own = block.__dict__.get("forward")  # a library may have put one there
            stack.callback(*((setattr, block, "forward", own) if own else (delattr, block, "forward")))
            block.forward = skip(number)
        yield


@torch.no_grad()
def can_resume(reader: AttentionReader, images: Tensor) -> bool:
    """Whether passes that start in the middle and at the end give the features of whole ones on these images."""
    depth = len(reader.layers)
    hidden: dict[int, Tensor] = {}
    with entering(reader, hidden.__setitem__):
        right = reader.features(images)
    if len(hidden) != depth + 1:
        return False
    for layer in {depth // 2, depth - 1}:
        try:
            with resumed(reader, layer, hidden[layer]):
                found = reader.features(images)
        except (TypeError, RuntimeError, ValueError, IndexError, AttributeError):  # its blocks hand on more than tokens
            return False
        error = (found - right).abs().max() if found.shape == right.shape else torch.tensor(torch.inf)
        if not error <= AGREES * right.abs().max():
            return False
    return True
