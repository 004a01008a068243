"""From a model and a mask a layer to the masked dense model and the compact one that computes the same."""

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from aft_lens.layers.mixers.aft_conv import AFTConv
from aft_lens.layers.position_bias import Free, Indexed
from aft_lens.models import VisionModel, as_model, conv_layers, position_biases
from aft_lens.ops.inspection import indexed_form

FORMS = {
    "pool": "pooling only",
    "gather": "k-offset gather",
    "matmul": "matrix product",
    "rowwise": "row by row",
}
"""Words for the forms of `aft_indexed`; one gather a head is pure indexing."""


def conv_mixers(model: VisionModel) -> list[AFTConv]:
    """The AFT-conv mixers of a model, block by block.

    Raises ValueError if the model has none, is not ours, or pools over its window alone (`outside="none"`), which k
    offsets cannot stand for.
    """
    if not isinstance(as_model(model), VisionModel):
        layers = len(conv_layers(model))
        others = f"; its {layers} AFT-conv layers are read by aft_lens.bias_maps and changed by edit" if layers else ""
        raise ValueError(
            "pruning needs a model of aft_lens.load or aft_lens.create, whose config says how it is cut, got "
            f"{type(model).__module__}.{type(model).__name__}{others}"
        )
    mixers = [mixer for block in model.blocks if isinstance(mixer := block.mixer, AFTConv)]
    if not mixers or len(mixers) < len(model.blocks):
        raise ValueError(
            f"model must have the mixer aft_conv to be pruned to indexing, got {model.config.mixer!r}; "
            "give one that has, as aft_lens.load('digits-conv').model (`aft-lens list` shows them)"
        )
    if model.config.outside != "global":
        raise ValueError(
            f'model must pool globally (outside="global") to be pruned to indexing, got outside='
            f"{model.config.outside!r}; train it with --model.outside global"
        )
    return mixers


@torch.no_grad()
def dense_biases(model: VisionModel) -> list[Tensor]:
    """w of every layer as evaluation computes with it, each `h y x`: hard for Eq. 10, laid out for `Indexed`."""
    conv_mixers(model)  # raises on what cannot be pruned
    return [w.detach().clone() for w in position_biases(model)]


def full_masks(model: VisionModel) -> list[Tensor]:
    """Masks that keep every offset whose bias is not 0, one `h y x` a layer."""
    return [w != 0 for w in dense_biases(model)]


def masked_model(model: VisionModel, masks: Sequence[Tensor]) -> VisionModel:
    """A dense copy whose biases are 0 where `masks` (`h y x`, True where kept) are False, in evaluation mode."""
    dense = copy.deepcopy(model).eval()
    for mixer, w, mask in zip(conv_mixers(dense), _checked(model, masks), masks, strict=True):
        bias = Free(0)
        bias.weight = nn.Parameter(torch.where(mask, w, 0.0))
        mixer.position_bias = bias
    dense.config = replace(model.config, position_bias="free", keep=())
    return dense


def dense_weights(model: VisionModel) -> list[nn.Parameter]:
    """The parameters w of a model as `masked_model` makes it, whose biases are themselves parameters."""
    return [next(mixer.position_bias.parameters()) for mixer in conv_mixers(model)]


def compact_model(model: VisionModel, masks: Sequence[Tensor]) -> VisionModel:
    """A copy whose biases are `Indexed` at the kept offsets, in evaluation mode; its config says how many.

    Within a head the offsets are ordered by |exp(w) - 1|, strongest first; a head with fewer than its layer's
    widest has spare slots. A layer that keeps none becomes pooling alone.
    """
    compact = copy.deepcopy(model).eval()
    keep = []
    for mixer, w, mask in zip(conv_mixers(compact), _checked(model, masks), masks, strict=True):
        indexed = index_bias(w, mask)
        mixer.position_bias = indexed
        keep.append(indexed.keep)
    compact.config = replace(model.config, keep=tuple(keep))
    return compact


def index_bias(w: Tensor, mask: Tensor) -> Indexed:
    """`Indexed` with w at the True places of `mask`, both `h *window`."""
    sides = torch.tensor(w.shape[1:], device=w.device)
    flat, chosen = w.flatten(1), mask.flatten(1)
    width = int(chosen.sum(1).max()) if chosen.numel() else 0
    order = torch.where(chosen, torch.expm1(flat).abs(), -1.0).argsort(stable=True, dim=1, descending=True)[:, :width]
    kept = chosen.gather(1, order)
    places = torch.stack(torch.unravel_index(order, w.shape[1:]), dim=-1) - sides // 2
    places = torch.where(kept.unsqueeze(-1), places, 0)
    return Indexed(torch.where(kept, flat.gather(1, order), 0.0), places, kept)


def layer_forms(model: VisionModel) -> list[str]:
    """What each layer runs on the model's own grid, in words: a convolution, or a value of `FORMS`."""
    forms = []
    for mixer in conv_mixers(model):
        bias = mixer.position_bias
        if bias.offset is None:
            forms.append("convolution")
            continue
        form = indexed_form(bias(), model.config.grid_size**2)
        forms.append("pure indexing" if form == "gather" and bias.keep == 1 else FORMS[form])
    return forms


def _checked(model: VisionModel, masks: Sequence[Tensor]) -> list[Tensor]:
    """The dense biases, after checking that the masks fit them."""
    biases = dense_biases(model)
    found, expected = [tuple(mask.shape) for mask in masks], [tuple(w.shape) for w in biases]
    if found != expected:
        raise ValueError(f"masks must have one `h y x` a layer, {expected}, got {found}")
    return biases
