"""What timm's attention modules have in common: where their weights pass, and the values that their heads mix."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch.nn.functional as F
from timm.models.maxxvit import AttentionCl
from torch import Tensor, nn


@contextmanager
def unfused(layers: Sequence[Any], sink: Callable[[int, Tensor], None]) -> Iterator[None]:
    """Inside, no layer is fused, and `sink` gets each one's number and weights at the dropout that they pass."""

    def passed(number: int, _module: nn.Module, _inputs: Any, weights: Tensor) -> None:
        sink(number, weights)

    with ExitStack() as stack:
        for number, layer in enumerate(layers):
            if hasattr(layer, "fused_attn"):
                stack.callback(setattr, layer, "fused_attn", layer.fused_attn)
                layer.fused_attn = False
            stack.callback(layer.attn_drop.register_forward_hook(partial(passed, number)).remove)
        yield


def value(module: Any, x: Tensor) -> Tensor:
    """The values `b h s c` of a timm attention module for tokens `b s d`."""
    b, t = x.shape[:2]
    if getattr(module, "v_proj", None) is not None:
        heads = module.v_proj(x).reshape(b, t, -1, module.head_dim).transpose(1, 2)
        return heads.repeat_interleave(module.num_heads // heads.shape[1], dim=1)  # where heads share keys and values
    if isinstance(module, AttentionCl) and module.head_first:
        return module.qkv(x).reshape(b, t, module.num_heads, -1).chunk(3, -1)[2].transpose(1, 2)
    weight = module.qkv.weight.chunk(3)[2]
    bias = getattr(module, "v_bias", None)
    if module.qkv.bias is not None:
        bias = module.qkv.bias.chunk(3)[2]
    return F.linear(x, weight, bias).reshape(b, t, module.num_heads, -1).transpose(1, 2)
