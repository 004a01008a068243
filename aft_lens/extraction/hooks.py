"""Named hook points on our own models, and one forward pass that keeps what passes through them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from aft_lens.layers.hook_point import HookPoint
from aft_lens.layers.mixers.attention import Attention

Sink = Callable[[str, Tensor], None]


def hook_points(model: nn.Module) -> list[str]:
    """Dotted names of every hook point of a model, in the order of its modules."""
    return [name for name, module in model.named_modules() if isinstance(module, HookPoint)]


@contextmanager
def unfused(model: nn.Module) -> Iterator[None]:
    """Have every `Attention` of the model run its unfused form inside the block; restored afterwards."""
    layers = [module for module in model.modules() if isinstance(module, Attention)]
    before = [layer.fused for layer in layers]
    try:
        for layer in layers:
            layer.fused = False
        yield
    finally:
        for layer, fused in zip(layers, before, strict=True):
            layer.fused = fused


@contextmanager
def watch(model: nn.Module, names: Sequence[str], sink: Sink) -> Iterator[None]:
    """Call `sink(name, tensor)` for every tensor that passes the named hook points inside the block.

    Attention is unfused where `hook_attention` is asked for. Raises ValueError on a name that is no hook point,
    and RuntimeError at the end of the block if a named hook point never fired.
    """
    known = hook_points(model)
    unknown = sorted(set(names) - set(known))
    if unknown:
        shown = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
        raise ValueError(f"names: {unknown} are no hook points of this model; it has {shown or 'none'}")
    fired: set[str] = set()

    def reader(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def read(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            fired.add(name)
            sink(name, output)

        return read

    with ExitStack() as stack:
        if any(name.endswith("hook_attention") for name in names):
            stack.enter_context(unfused(model))
        for name in names:
            handle = model.get_submodule(name).register_forward_hook(reader(name))
            stack.callback(handle.remove)
        yield
    silent = [name for name in names if name not in fired]
    if silent:
        raise RuntimeError(
            f"hook points never fired: {silent}; a layer without that tensor, or a forward pass that skips it"
        )


def run_with_cache(model: nn.Module, images: Tensor, names: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
    """Run a model once without gradients and return its logits and the tensors at the named hook points.

    `images` is `b c y x`, normalised; `names` come from `hook_points`. The model's own mode and its fused attention
    are as before afterwards. Raises ValueError on an unknown name and RuntimeError where a hook never fired.
    """
    cache: dict[str, Tensor] = {}
    with torch.no_grad(), watch(model, names, lambda name, tensor: cache.__setitem__(name, tensor.detach())):
        logits = model(images)
    return logits, cache
