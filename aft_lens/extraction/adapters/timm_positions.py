"""The relative positions of timm's models: Swin, Swin V2, vit_relpos_*, BEiT, MaxViT and ConViT."""

from typing import Any

import torch
from timm.layers.pos_embed_rel import RelPosBias, RelPosBiasTf, RelPosMlp
from timm.models.beit import Attention as BeitAttention
from timm.models.convit import GPSA
from timm.models.swin_transformer import WindowAttention
from timm.models.swin_transformer_v2 import WindowAttention as WindowAttentionV2
from timm.models.swin_transformer_v2_cr import WindowMultiHeadAttention
from torch import Tensor

from aft_lens.extraction.adapters.timm_vit import class_names, load
from aft_lens.extraction.offsets import fold_offsets, targets_per_offset
from aft_lens.extraction.positions import PositionMap, bias_map
from aft_lens.extraction.request import Request

BIASES = (RelPosBias, RelPosMlp, RelPosBiasTf, WindowAttention, WindowAttentionV2, WindowMultiHeadAttention)


def open_positions(request: Request) -> list[PositionMap]:
    """Build or download a timm model and read its positions."""
    return position_maps(load(request)[0].eval(), request.spec)


@torch.no_grad()
def position_maps(model: Any, source: str = "model") -> list[PositionMap]:
    """The positions of every layer that has any; ValueError if none has, naming what was looked for."""
    found: list[PositionMap] = []
    for name, module in model.named_modules():
        if isinstance(module, BIASES) or _is_beit(module):
            found.append(bias_map(name, _pairs(module), module.window_size))
        elif isinstance(module, GPSA):
            found.append(_gated(name, module, tuple(model.patch_embed.grid_size)))
    if not found:
        raise ValueError(
            f"{source}: looked for relative positions in {class_names((*BIASES, BeitAttention, GPSA))}; "
            f"{type(model).__name__} has none"
        )
    return found


def _is_beit(module: Any) -> bool:
    """True for BEiT's attention with a bias of its own; BEiT may have one shared by all layers, a `RelPosBias`."""
    return isinstance(module, BeitAttention) and module.relative_position_bias_table is not None


def _pairs(module: Any) -> Tensor:
    """A relative-position bias written out to every (target, source) pair, `h t s`."""
    if isinstance(module, WindowAttention | BeitAttention):
        return module._get_rel_pos_bias()[0]
    if isinstance(module, WindowMultiHeadAttention):
        return module._relative_positional_encodings()[0]
    if isinstance(module, WindowAttentionV2):  # Eq. 3 and Sec. 3.3 of Swin V2: 16 sigmoid(MLP(log offsets))
        table = (16 * torch.sigmoid(module.cpb_mlp(module.relative_coords_table))).reshape(-1, module.num_heads)
        index: Any = module.relative_position_index
        return table[index].permute(2, 0, 1)
    pairs = module.get_bias()
    return pairs[0] if pairs.ndim == 4 else pairs


def _gated(name: str, module: GPSA, grid: tuple[int, int]) -> PositionMap:
    """ConViT's positional attention (Eq. 7 of its paper) averaged over targets by offset, with sigmoid(lambda)."""
    if grid[0] != grid[1]:
        raise ValueError(f"{name}: timm's ConViT takes its grid for a square, got {grid}; ask for a square one")
    scores: Tensor = module.pos_proj(module.get_rel_indices(grid[0] * grid[1]))[0]
    pairs = scores.permute(2, 0, 1).softmax(-1).double()
    maps = fold_offsets(pairs, grid) / targets_per_offset(grid)
    return PositionMap(name, "gated", maps.float(), module.gating_param.detach().sigmoid())
