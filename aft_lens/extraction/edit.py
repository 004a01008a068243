"""One head changed for as long as a block lasts: its position bias, its key or its attention."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from aft_lens.extraction.aft import AFTReader
from aft_lens.extraction.reader import AttentionReader
from aft_lens.extraction.sources import as_reader
from aft_lens.layers.mixers.aft_conv import AFTConv
from aft_lens.models import VisionModel, as_model, conv_layers

Value = float | Tensor | Callable[[Tensor], Tensor]
"""What a head's tensor becomes: a number everywhere, a tensor that broadcasts to it, or a function of what it was."""
CLOSE = 1e-4
"""Largest error, relative and absolute, of a bias that a parametrization was asked for and gives."""


@contextmanager
def edit(
    model: nn.Module | AttentionReader,
    layer: int,
    head: int,
    *,
    bias: Value | None = None,
    key: Value | None = None,
    attention: Value | None = None,
) -> Iterator[Tensor | None]:
    """Replace one head's bias, key or attention inside the block, and restore it after: `with edit(m, 0, 3, bias=0):`.

    `bias` is w of an AFT-conv's head on its window, `y x` (`k` where it is indexed): it is set in the weights, so that
    a checkpoint saved inside the block has it; the other heads keep theirs to the bit. `key` is what an AFT-conv's head
    adds to w for each image, `b *grid`; a number is set in the weights too, and saved. Both work for AFT-conv layers
    inside any model, `layer` counting them in the order of its modules. `attention` are the weights of any ViT's head,
    or an AFT-conv's written out, `b t s` with the class token first. Several may be given.

    The block's value is no handle of the edit: it is the head's w before, to compare with or to build on, None unless
    `bias` is given. The edited thing is `model` itself: `with edit(model, 0, 3, bias=0) as before: model(images)`.
    Raises ValueError on a head that is not there, on a part that the model has not, and on a value that does not fit.
    """
    if bias is None and key is None and attention is None:
        raise ValueError("edit needs bias, key or attention, got none of them; bias=0 takes a head's bias away")
    inner = model.model if isinstance(model, AttentionReader) else as_model(model)
    before = None
    with ExitStack() as stack:
        if bias is not None or key is not None:
            mixer = _conv(inner, layer, head)
            if bias is not None:
                before = stack.enter_context(_biased(mixer, head, bias))
            if isinstance(key, int | float):
                stack.enter_context(_constant_key(mixer, head, float(key)))
            elif key is not None:
                stack.callback(mixer.hook_key.register_forward_hook(_keyed(head, key)).remove)
        if attention is not None:
            stack.enter_context(_attending(_reader(model), layer, head, attention))
        yield before


def _conv(model: nn.Module, layer: int, head: int) -> AFTConv:
    """An AFT-conv layer by its number; ValueError where there is none, or no such head."""
    layers = conv_layers(model)
    if not layers:
        raise ValueError("bias and key are an AFT-conv's, and the model has none; give attention to edit a ViT")
    _check("layer", layer, len(layers))
    _check("head", head, layers[layer].num_heads)
    return layers[layer]


def _reader(model: nn.Module | AttentionReader) -> AttentionReader:
    """A reader of attention, of an AFT-conv's as well."""
    if isinstance(model, VisionModel) and model.config.traits.weights == "offset":
        return AFTReader(model)
    return as_reader(model)


def _check(name: str, number: int, count: int) -> None:
    if not 0 <= number < count:
        raise ValueError(f"{name} must be 0 to {count - 1}, got {number}")


@contextmanager
def _biased(mixer: AFTConv, head: int, value: Value) -> Iterator[Tensor]:
    """Set a head's w in the weights; its w before is the block's value."""
    place: Any = mixer.position_bias
    kept = {name: tensor.clone() for name, tensor in place.state_dict().items()}
    try:
        with torch.no_grad():
            w = (place.dense() if place.keep is None else place()).clone()
            before = w[head].clone()
            w[head] = wanted = _replaced("bias", value, before)
            if place.keep is None:
                place.assign(w)
            else:
                place.weight.copy_(w)
            for name, parameter in place.named_parameters():
                others = torch.arange(len(parameter), device=parameter.device) != head
                parameter[others] = kept[name][others]
            found = (place.dense() if place.keep is None else place())[head]
            if not torch.allclose(found, wanted, rtol=CLOSE, atol=CLOSE):
                raise ValueError(
                    f"bias must be a map that {type(place).__name__} can be, got one that it would be by "
                    f"{float((found - wanted).abs().max()):.2g} off; a single-position head keeps its largest entry "
                    "alone, and an indexed one the offsets that it has"
                )
        yield before
    finally:
        place.load_state_dict(kept)


@contextmanager
def _constant_key(mixer: AFTConv, head: int, value: float) -> Iterator[None]:
    """Make a head's key a number everywhere, in the weights: the head then reads by position alone."""
    wanted = _replaced("key", value, mixer.key.bias[head])
    kept = {name: tensor.clone() for name, tensor in mixer.key.state_dict().items()}
    try:
        with torch.no_grad():
            mixer.key.weight[head] = 0.0
            mixer.key.bias[head] = wanted
        yield
    finally:
        mixer.key.load_state_dict(kept)


def _keyed(head: int, value: Value) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    """A hook that replaces a head's key, `b h *grid`."""

    def hook(_module: nn.Module, _inputs: Any, key: Tensor) -> Tensor:
        key = key.clone()
        key[:, head] = _replaced("key", value, key[:, head])
        return key

    return hook


@contextmanager
def _attending(reader: AttentionReader, layer: int, head: int, value: Value) -> Iterator[None]:
    """Replace a head's weights, `b h t s`."""
    _check("layer", layer, len(reader.layers))
    _check("head", head, reader.num_heads)

    def change(number: int, weights: Tensor) -> Tensor:
        if number != layer:
            return weights
        weights = weights.clone()
        weights[:, head] = _replaced("attention", value, weights[:, head])
        return weights

    with reader.edited(change):
        yield


def _replaced(name: str, value: Value, before: Tensor) -> Tensor:
    """The new value in the shape of the old one; ValueError if it does not broadcast to it or is not finite."""
    after = value(before.clone()) if callable(value) else value
    after = torch.as_tensor(after).to(before)
    try:
        after = after.expand_as(before)
    except RuntimeError as error:
        shape = tuple(before.shape)
        raise ValueError(f"{name} must have shape {shape} or broadcast to it, got {tuple(after.shape)}") from error
    if not bool(after.isfinite().all()):
        raise ValueError(
            f"{name} must be finite, got {after[~after.isfinite()][0].item()}; take -30 for next to nothing"
        )
    return after
