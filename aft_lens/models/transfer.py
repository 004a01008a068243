"""AFT-conv from the weights of a ViT (Table 8), and position biases from the ViT's relative attention."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aft_lens.layers.mixers.aft_conv import AFTConv
from aft_lens.models.config import ModelConfig
from aft_lens.models.vision import VisionModel, seeded_model

RENAMES = (
    (r"^(?:vit|deit|dinov2|dinov2_with_registers)\.", ""),
    (r"^(?:patch_embed\.proj|conv_proj|embeddings\.patch_embeddings\.projection)\.", "stem."),
    (r"^(?:encoder\.layers\.encoder_layer_|encoder\.layer\.|layers\.)(\d+)\.", r"blocks.\1."),
    (r"^(?:encoder\.ln|layernorm)\.", "norm."),
    (r"^(?:heads\.head|classifier|cls_classifier)\.", "head."),
    (r"\.(?:ln_1|layernorm_before)\.", ".norm1."),
    (r"\.(?:ln_2|layernorm_after)\.", ".norm2."),
    (r"\.(?:attn|self_attention|attention)\.", ".mixer."),
    (r"\.mixer\.(?:out_proj|o_proj)\.", ".mixer.proj."),
    (r"\.mixer\.v_proj\.", ".mixer.value."),
    (r"\.mixer\.in_proj_", ".mixer.qkv."),
    (r"\.mlp\.fc1\.", ".mlp.0."),
    (r"\.mlp\.fc2\.", ".mlp.3."),
    (r"\.(?:ls|layer_scale)([12])\.(?:gamma|lambda1)$", r".scale\1"),
)
"""From the names of timm, torchvision and Hugging Face transformers 5 to ours, applied in this order."""
SCALED = {".mixer.proj.": ".scale1", ".mlp.3.": ".scale2"}
"""Linear layers that a LayerScale follows; it is multiplied into them, which changes nothing they compute."""
FRESH = ("query", "key", "position_bias")
"""Parts of an AFT-conv mixer that Table 8 does not take from a ViT."""
FLOOR = 1e-6
"""Smallest relative attention, as a fraction of the uniform share, that a bias is made from: w stays finite."""


@dataclass(frozen=True)
class Transfer:
    """An AFT-conv that starts from a ViT, and what happened to every tensor of both."""

    model: VisionModel
    taken: dict[str, tuple[str, ...]]
    """Tensor of the AFT: the ViT's that it is made of, the second one a LayerScale."""
    fresh: dict[str, str]
    """Tensor of the AFT that keeps its random start: why."""
    left: tuple[str, ...]
    """Tensors of the ViT that have no place in the AFT."""


def from_vit(vit: nn.Module | Mapping[str, Tensor], config: ModelConfig, *, seed: int = 0) -> Transfer:
    """Start an AFT-conv from a ViT: all but position embedding, class token, query and key projections (Table 8).

    `vit` is the model or its state dict, ours or of timm, torchvision or transformers. Values come out of the joint
    projection where there is one; a LayerScale is multiplied into the linear layer before it. The numbers of heads may
    differ: value channels keep their order. A classifier of other outputs or inputs leaves the head fresh. What is
    fresh is drawn by `seed`. Raises ValueError if the target is no AFT-conv, if depths differ, or if a tensor is
    missing or of another shape.
    """
    if config.traits.weights != "offset":
        raise ValueError(f"a ViT's weights go into aft_conv alone, got mixer {config.mixer!r}; choose an aft_conv_*")
    state = vit.state_dict() if isinstance(vit, nn.Module) else vit
    given = canonical(state)
    depth = 1 + max((int(name.split(".")[1]) for name in given if name.startswith("blocks.")), default=-1)
    if not depth:
        raise ValueError(
            "the ViT has no blocks under the names of our own models, timm (blocks.0), torchvision "
            f"(encoder.layers.encoder_layer_0) or transformers (layers.0); its tensors start with {sorted(state)[:3]}"
        )
    if depth != config.depth:
        raise ValueError(f"the AFT must have the ViT's depth {depth}, got {config.depth}; give --depth {depth}")
    model = seeded_model(config, seed)
    own, taken, fresh, wrong = model.state_dict(), {}, {}, []
    for name, start in own.items():
        part = name.split(".")[3] if ".mixer." in name else ""
        if part in FRESH:
            fresh[name] = f"a ViT's {part.replace('_', ' ')} is not transferred"
            continue
        value, origins = found_tensor(given, name)
        if value is not None and value.shape == start.shape:
            own[name] = value.to(start)
            taken[name] = origins
        elif name.startswith("head."):
            found = f"the ViT's has {tuple(value.shape)}" if value is not None else "the ViT has none"
            fresh[name] = f"expected {tuple(start.shape)}, {found}"
        elif value is None:
            wrong.append(f"{name}: expected {tuple(start.shape)}, the ViT has none")
        else:
            wrong.append(f"{name}: expected {tuple(start.shape)}, the ViT's {origins[0]} gives {tuple(value.shape)}")
    if wrong:
        raise ValueError(
            f"the ViT does not fit {config.mixer} of width {config.embed_dim}, MLP ratio {config.mlp_ratio} and "
            f"patch {config.patch_size}; choose a target of its shape:\n  " + "\n  ".join(wrong[:6])
            + (f"\n  and {len(wrong) - 6} more" if len(wrong) > 6 else "")
        )  # fmt: skip
    model.load_state_dict(own)
    used = {source for origins in taken.values() for source in origins}
    return Transfer(model, taken, fresh, tuple(name for name in state if name not in used))


def canonical(state: Mapping[str, Tensor]) -> dict[str, tuple[str, Tensor]]:
    """(the ViT's name, tensor) by our name, for the names of timm, torchvision, transformers and ours."""
    given = {}
    for source, tensor in state.items():
        name = source
        for pattern, replacement in RENAMES:
            name = re.sub(pattern, replacement, name)
        given[name] = source, tensor
    return given


def found_tensor(given: Mapping[str, tuple[str, Tensor]], name: str) -> tuple[Tensor | None, tuple[str, ...]]:
    """The ViT's tensor for one of ours and the names it is made of, or None and no names."""
    joint = name.replace(".value.", ".qkv.")
    if name in given:
        source, value = given[name]
    elif ".mixer.value." in name and joint in given:
        source, value = given[joint]
        value = value[2 * len(value) // 3 :]
    else:
        return None, ()
    for layer, scale in SCALED.items():
        block, found, _ = name.partition(layer)
        if found and block + scale in given:
            factor, gamma = given[block + scale]
            return value * gamma.reshape(-1, *[1] * (value.ndim - 1)), (source, factor)
    return value, (source,)


@torch.no_grad()
def start_from_relative(
    model: VisionModel, maps: Float[Tensor, "layer head dy dx"], targets: Float[Tensor, "dy dx"]
) -> None:
    """Set the position biases of an AFT-conv so that it looks where a ViT's heads look on average.

    With constant keys an AFT-conv head gives a source at offset o in its window exp(w_o) times the weight of a source
    outside (Eq. 6). A ViT head's border-corrected relative attention m does so for w_o = log(m_o / u), where u is the
    mean of m over the offsets outside the window, each counted as often as a target has it (`targets`). On a torus
    this w minimises the divergence KL(m || AFT's weights). Where the window covers every offset, u is the mean over
    all. Offsets that no pair of the ViT's grid has get w = 0, and m and u are floored at `FLOOR` of the uniform share.

    An AFT head takes the map of the ViT head whose value channels it holds, and the mean of several, weighted by the
    channels it has of each. w is solved for the parametrization exactly (Eq. 8: raw w' of mean 0 and std 1, gamma =
    std(w), beta = mean(w)). Raises ValueError if depths differ or the bias cannot take a map.
    """
    if len(maps) != len(model.blocks):
        raise ValueError(f"maps must have a layer for each of {len(model.blocks)} blocks, got {len(maps)}")
    side = model.config.window_size
    sources = ((targets.shape[0] + 1) // 2) * ((targets.shape[1] + 1) // 2)
    share = _channel_share(maps.shape[1], model.config.num_heads, model.config.embed_dim)
    for block, layer in zip(model.blocks, maps, strict=True):
        m = torch.einsum("ai,iyx->ayx", share, layer.double().cpu()).clamp(min=FLOOR / sources)
        mixer = block.get_submodule("mixer")
        assert isinstance(mixer, AFTConv)
        mixer.position_bias.assign(_window_bias(m, targets.double().cpu(), side))


def _channel_share(given: int, wanted: int, dim: int) -> Float[Tensor, "a i"]:
    """Of each AFT head's value channels, the fraction that belongs to each ViT head."""
    channel = torch.arange(dim)
    share = torch.zeros(wanted, given, dtype=torch.float64)
    share.index_put_((channel * wanted // dim, channel * given // dim), torch.ones(dim).double(), accumulate=True)
    return share * wanted / dim


def _window_bias(m: Float[Tensor, "a dy dx"], targets: Float[Tensor, "dy dx"], side: int) -> Float[Tensor, "a y x"]:
    """log(m / u) on the window."""
    inside = torch.ones_like(targets, dtype=torch.bool)
    place, window = [], []
    for axis, length in enumerate(targets.shape):
        reach = min(side, length) // 2
        centre = length // 2
        place.append(slice(centre - reach, centre + reach + 1))
        window.append(slice(side // 2 - reach, side // 2 + reach + 1))
        near = (torch.arange(length) - centre).abs() <= reach
        inside &= near.unsqueeze(1 - axis)
    count = targets * (inside if inside.all() else ~inside)
    level = (m * count).sum((1, 2), keepdim=True) / count.sum()
    w = m.new_zeros(len(m), side, side)
    w[:, window[0], window[1]] = (m / level).log()[:, place[0], place[1]]
    return w
