"""transformers' attention in eager form, whose modules return their weights beside their output."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from aft_lens.extraction.reader import AttentionSink


@contextmanager
def eager(model: nn.Module, layers: Sequence[nn.Module], sink: AttentionSink) -> Iterator[None]:
    """Inside the block, attention runs in eager form, and the weights of each layer go to `sink`."""

    def read(number: int) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if output[1] is not None:
                sink(number, output[1])

        return hook

    config: Any = model.config
    with ExitStack() as stack:
        stack.callback(setattr, config, "_attn_implementation", config._attn_implementation)
        config._attn_implementation = "eager"
        for number, layer in enumerate(layers):
            # Before other hooks of the layer: `edited` looks for the weights in its own.
            stack.callback(layer.register_forward_hook(read(number), prepend=True).remove)
        yield
