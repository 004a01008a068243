"""The form that never underflows: every target with its joint maximum of key and bias."""

import torch
from torch import Tensor

from aft_lens.ops.forms.spec import unnarrowed


def rowwise(key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Mean of values under softmax_s(key_s + bias_ts), each target with its joint maximum.

    Shapes: key `b h s`, value `b h c s`, bias `h t s`; result `b h c t`. Holds T x T a head and image at a time
    it computes, so it is the exact form for extreme inputs, not the fast one. A source that is not finite makes the
    targets NaN that read it, and no other.
    """
    with unnarrowed(key):
        rows = [_rows(k, v, bias) for k, v in zip(key.unbind(0), value.unbind(0), strict=True)]
    return torch.stack(rows).transpose(-1, -2)


def row_weights(key: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """One image's weights `h t s`, which sum to 1 or are 0 where nothing is read, and which pairs are not read."""
    unread = (bias == float("-inf")) | (key == float("-inf")).unsqueeze(-2)
    score = (key.unsqueeze(-2) + bias).masked_fill(unread, float("-inf"))
    score = score.masked_fill(unread.all(-1, keepdim=True), 0.0)  # nothing is read: every weight is set to 0 below
    return torch.softmax(score, dim=-1).masked_fill(unread, 0.0), unread


def _rows(key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """One image's, `h t c`."""
    weight, unread = row_weights(key, bias)
    broken = ~value.isfinite()
    mean = weight @ value.masked_fill(broken, 0.0).transpose(-1, -2)
    reached = (~unread).to(value.dtype) @ broken.to(value.dtype).transpose(-1, -2)
    return mean.masked_fill(reached > 0, float("nan"))
