"""The form that never underflows: every target with its joint maximum of key and bias."""

import torch
from torch import Tensor


def rowwise(key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Mean of values under softmax_s(key_s + bias_ts), each target with its joint maximum.

    Shapes: key `b h s`, value `b h c s`, bias `h t s`; result `b h c t`. Holds T x T a head and image at a time
    it computes, so it is the exact form for extreme inputs, not the fast one.
    """
    with torch.autocast(key.device.type, enabled=False):
        rows = [
            torch.softmax(k.unsqueeze(-2) + bias, dim=-1) @ v.transpose(-1, -2)
            for k, v in zip(key.unbind(0), value.unbind(0), strict=True)
        ]
    return torch.stack(rows).transpose(-1, -2)
